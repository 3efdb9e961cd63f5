//! `cipherlens params`: parameter sets, their ladders and their security.

use super::failure::{Class, Failure, Outcome};
use super::output::{Align, Table, say};
use cipherlens::ckks::{Level, Params, ParamsError, presets};
use std::sync::Arc;

mod bootstrap;
mod search;

/// The preset used where none is named.
pub(crate) const DEFAULT_PRESET: &str = "n15-cnn";

/// Parameter sets and their security
#[derive(Debug, clap::Args)]
pub(crate) struct ParamsCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// All presets, one line each
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// One preset: sizes, security, the ladder of levels
    Show {
        /// Its name
        #[arg(default_value = DEFAULT_PRESET)]
        preset: String,
        /// Print one JSON object, primes included
        #[arg(long)]
        json: bool,
    },
    /// Ladders for bootstrapping that meet a goal at 128 bits of classical security, the fastest (by estimate) first
    Search(search::Search),
}

impl ParamsCommand {
    /// Prints them.
    pub(crate) fn run(&self) -> Outcome {
        match &self.action {
            Action::List { json } => list(*json),
            Action::Show { preset, json } => {
                let params = open(preset)?;
                show(&params, *json)
            }
            Action::Search(search) => search.run(),
        }
    }
    /// Whether the answer is to be one JSON line.
    pub(crate) fn json(&self) -> bool {
        match self.action {
            Action::List { json } | Action::Show { json, .. } => json,
            Action::Search(ref search) => search.json,
        }
    }
}

/// The parameter set of a preset.
pub(crate) fn open(name: &str) -> Outcome<Arc<Params>> {
    presets::by_name(name).map_err(|e| match &e {
        ParamsError::NoSuchPreset { have, .. } => Failure::new(
            Class::Usage,
            format!("there is no preset `{name}`"),
            format!("presets are {have}"),
            "name one of them; `cipherlens params list` tells what each is for",
        ),
        _ => super::failure::explain(format!("cannot build preset `{name}`"), &e),
    })
}

/// Bits of classical security claimed, and estimated.
fn classical(params: &Params) -> String {
    match (params.security_bits_claim(), params.estimated_security()) {
        (0, _) => "NONE (tests only)".into(),
        (bits, Some(estimate)) => format!("{bits} bits (estimate {estimate:.1})"),
        (bits, None) => format!("{bits} bits"),
    }
}

/// Whether 128 bits hold against quantum computers too, and the estimate.
fn quantum(params: &Params) -> String {
    let claim = match (params.is_insecure(), params.meets_quantum_128()) {
        (true, _) => return "-".into(),
        (false, true) => "128 bits",
        (false, false) => "below 128",
    };
    params.estimated_quantum_security().map_or(claim.into(), |estimate| format!("{claim} (estimate {estimate:.1})"))
}

/// A cap, where the table has a row for the ring.
fn cap(bits: Option<f64>) -> String {
    bits.map_or("-".into(), |c| format!("{c:.0}"))
}

/// The secret that the modulus is raised under, and what may be encrypted under it.
fn sparse(params: &Params) -> Option<serde_json::Value> {
    let circuit = params.bootstrap()?;
    let [to_sparse, _] = params.encapsulation_requests().ok()?;
    let log_modulus = params.tables().log2(&params.key_basis(&to_sparse.gadget).ok()?);
    Some(serde_json::json!({ "weight": circuit.weight, "log_modulus": log_modulus }))
}

fn summary(params: &Params) -> serde_json::Value {
    let top = params.max_level();
    serde_json::json!({
        "name": params.name(), "log_n": params.log_n(), "slots": params.slots(), "levels": top.0,
        "log_q": params.log_q(top), "log_qp": params.log_qp(), "log_qp_cap": params.classical_cap(),
        "log_scale": params.scale(Level(0)).log2(), "limbs": params.window(top).len(), "special_primes": params.special().len(),
        "security_bits": params.security_bits_claim(), "estimated_security_bits": params.estimated_security(), "insecure": params.is_insecure(),
        "log_qp_cap_quantum": params.quantum_cap(), "meets_quantum_128": params.meets_quantum_128(),
        "estimated_quantum_security_bits": params.estimated_quantum_security(), "sparse_secret": sparse(params),
    })
}

fn list(json: bool) -> Outcome {
    let sets = presets::all().iter().map(|spec| open(spec.name)).collect::<Outcome<Vec<_>>>()?;
    if json {
        let object = serde_json::json!({ "presets": sets.iter().map(|p| summary(p)).collect::<Vec<_>>() });
        say!("{object}");
        return Ok(());
    }
    let mut table = Table::new([
        ("preset", Align::Left),
        ("N", Align::Right),
        ("slots", Align::Right),
        ("levels", Align::Right),
        ("scale", Align::Right),
        ("log Q", Align::Right),
        ("log QP", Align::Right),
        ("cap", Align::Right),
        ("classical", Align::Left),
        ("cap", Align::Right),
        ("quantum", Align::Left),
    ]);
    for p in &sets {
        table.row([
            p.name().to_string(),
            format!("2^{}", p.log_n()),
            p.slots().to_string(),
            p.max_level().0.to_string(),
            format!("2^{:.1}", p.scale(Level(0)).log2()),
            format!("{:.0}", p.log_q(p.max_level())),
            format!("{:.1}", p.log_qp()),
            cap(p.classical_cap()),
            classical(p),
            cap(p.quantum_cap()),
            quantum(p),
        ]);
    }
    table.print("");
    say!();
    say!(
        "caps: the largest log2(QP) for 128 bits with a dense ternary secret and sigma 3.19, against classical attackers and those with a"
    );
    say!("quantum computer (Bossuat et al. 2024, ePrint 2024/463); estimates by the lattice estimator: docs/security.md");
    Ok(())
}

fn show(params: &Arc<Params>, json: bool) -> Outcome {
    let levels = (0..=params.max_level().0).rev().map(Level);
    if json {
        let ladder: Vec<_> = levels
            .map(|l| {
                serde_json::json!({ "level": l.0, "limbs": params.window(l).len(), "log_q": params.log_q(l), "log_scale": params.scale(l).log2() })
            })
            .collect();
        let literal = serde_json::to_value(params.literal()).unwrap_or_default();
        say!(
            "{}",
            serde_json::json!({ "summary": summary(params), "ladder": ladder, "literal": literal, "bootstrap": bootstrap::facts(params).map(|f| f.json(params)) })
        );
        return Ok(());
    }
    let literal = params.literal();
    say!("preset          {}", params.name());
    say!("ring            N = 2^{} = {}, {} slots a shard", params.log_n(), params.degree(), params.slots());
    say!("modulus         log2(QP) = {:.1}", params.log_qp());
    say!("security        classical: {}, cap {}", classical(params), cap(params.classical_cap()));
    say!("                quantum: {}, cap {}", quantum(params), cap(params.quantum_cap()));
    say!("secret          ternary, uniform, dense; error sigma {}", params.sigma());
    if let Some(circuit) = params.bootstrap() {
        say!(
            "                and one of weight {} derived from it, with a key to it and a key back: whoever breaks either has both",
            circuit.weight
        );
    }
    say!(
        "primes          {} terminal, {} main, {} special, each = 1 mod 2N and below 2^30",
        literal.terminal.len(),
        literal.main.len(),
        literal.special.len()
    );
    let top = params.max_level();
    if let Ok(gadget) = params.best_gadget(top..=top) {
        let key = super::output::bytes(gadget.key_bytes(params.degree()));
        say!(
            "key switching   at the top: {} digits of {} primes, {} special primes, {key} a key",
            gadget.digits(),
            gadget.alpha(),
            gadget.special()
        );
    }
    if let Some(facts) = bootstrap::facts(params) {
        facts.print(params);
    }
    say!("fingerprint     {}", hex(&params.fingerprint()[..16]));
    say!();
    let mut table = Table::new([
        ("level", Align::Right),
        ("terminal", Align::Right),
        ("main", Align::Right),
        ("log Q", Align::Right),
        ("log scale", Align::Right),
        ("ciphertext shard", Align::Right),
    ]);
    for l in levels {
        let rung = literal.ladder.get(l.0).copied();
        let count = |f: fn(cipherlens::ckks::params::Rung) -> usize| rung.map_or(0, f).to_string();
        table.row([
            l.0.to_string(),
            count(|r| r.terminal),
            count(|r| r.main),
            format!("{:.2}", params.log_q(l)),
            format!("{:.4}", params.scale(l).log2()),
            super::output::bytes((params.window(l).len() * params.degree() * 8) as u64),
        ]);
    }
    table.print("");
    Ok(())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
