//! `cipherlens bench ops`.

use super::floor::{Floor, Floors};
use super::{Common, KeyedScheme, Timing, measure, with_pools};
use crate::Global;
use crate::failure::{Outcome, explain};
use crate::output::{Align, Table, say};
use cipherlens::backend::Shape;
use cipherlens::ckks::{CkksError, Decryptor, KeyKind, KeyRequest, PlainForm};

/// Transforms, products, rotations, rescaling, encoding, encryption
#[derive(Debug, clap::Args)]
pub(super) struct Ops {
    /// Parameter set; everything is measured at its top level [default: the size other libraries are measured at]
    #[arg(long, short, value_name = "PRESET", default_value = "n16-bench")]
    preset: String,
    /// Primes a key switching digit [default: what is cheapest]
    #[arg(long, value_name = "A", value_parser = clap::value_parser!(u16).range(1..=64))]
    alpha: Option<u16>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone)]
struct Line {
    op: &'static str,
    threads: usize,
    timing: Timing,
    floor: Option<Floor>,
}

impl Ops {
    /// Measures and prints.
    pub(super) fn run(&self, global: &Global) -> Outcome {
        let scheme = KeyedScheme::new(&self.preset, &self.common.compute, self.alpha.map(usize::from), &[1])?;
        let lines = with_pools(global, |threads| self.measure_all(&scheme, threads))?.concat();
        if self.common.json {
            let results: Vec<_> = lines.iter().map(Line::json).collect();
            let mut object = scheme.describe();
            object["bench"] = "ops".into();
            object["results"] = results.into();
            say!("{object}");
            return Ok(());
        }
        say!("{}", scheme.headline());
        say!();
        let mut table = Table::new([
            ("operation", Align::Left),
            ("threads", Align::Right),
            ("median ms", Align::Right),
            ("least ms", Align::Right),
            ("floor MB", Align::Right),
            ("floor Mmul", Align::Right),
            ("GB/s", Align::Right),
            ("Gmul/s", Align::Right),
        ]);
        for line in &lines {
            let rate =
                |f: fn(Floor) -> u64| line.floor.map_or("".into(), |x| format!("{:.2}", f(x) as f64 / line.timing.median / 1e9));
            let size = |f: fn(Floor) -> u64| line.floor.map_or("".into(), |x| format!("{:.1}", f(x) as f64 / 1e6));
            table.row([
                line.op.into(),
                line.threads.to_string(),
                format!("{:.3}", line.timing.median * 1e3),
                format!("{:.3}", line.timing.least * 1e3),
                size(|f| f.bytes),
                size(|f| f.multiplies),
                rate(|f| f.bytes),
                rate(|f| f.multiplies),
            ]);
        }
        table.print("");
        say!();
        say!("floor: bytes that must move and products that must be made; GB/s and Gmul/s: floor over median");
        Ok(())
    }

    fn measure_all(&self, scheme: &KeyedScheme, threads: usize) -> Outcome<Vec<Line>> {
        let (params, evaluator) = (&scheme.params, &scheme.evaluator);
        let top = params.max_level();
        let (scale, basis) = (params.scale(top), params.window(top));
        let floors = Floors::new(params, &scheme.gadget, top);
        let failed = |e: CkksError| explain("cannot prepare the benchmark", &e);
        let (a, b) = (scheme.encrypt(1)?, scheme.encrypt(1)?);
        let vector = scheme.vectors(1).remove(0);
        let encode = |form| scheme.encoder.encode_real(&vector, scale, basis, form);
        let message = encode(PlainForm::Plain).map_err(failed)?;
        let factor = encode(PlainForm::Montgomery).map_err(failed)?;
        let digits = evaluator.mod_up(&a, scheme.gadget).map_err(failed)?;
        let product = evaluator.mul(&a, &b).map_err(failed)?;
        let decryptor = Decryptor::new(params, scheme.backend.clone()).map_err(failed)?;
        let shape = Shape::new(1, basis.len(), params.degree());
        let mut polynomial = scheme.backend.alloc(shape).map_err(|e| failed(e.into()))?;
        let rotation = KeyRequest { kind: KeyKind::Galois(params.galois_element(1)), gadget: scheme.gadget };

        let mut lines = Vec::new();
        let mut time = |op: &'static str, floor: Option<Floor>, f: &mut dyn FnMut() -> Result<(), CkksError>| -> Outcome {
            let timing = measure(scheme.backend.as_ref(), self.common.seconds, f)?;
            lines.push(Line { op, threads, timing, floor });
            Ok(())
        };
        time("ntt + inverse ntt, all limbs", Some(floors.transform()), &mut || {
            scheme.backend.ntt_forward(&mut polynomial, basis)?;
            Ok(scheme.backend.ntt_inverse(&mut polynomial, basis)?)
        })?;
        time("add", Some(floors.add()), &mut || evaluator.add(&a, &b).map(drop))?;
        time("plaintext product", Some(floors.multiply_plain()), &mut || evaluator.mul_plain(&a, &factor).map(drop))?;
        time("mul + relinearize", Some(floors.multiply()), &mut || evaluator.mul(&a, &b).map(drop))?;
        time("mul + relinearize + rescale", Some(floors.multiply_rescale()), &mut || evaluator.mul_rescale(&a, &b).map(drop))?;
        time("rescale", Some(floors.rescale()), &mut || evaluator.rescale(&product).map(drop))?;
        time("rotate", Some(floors.rotate()), &mut || evaluator.rotate(&a, 1).map(drop))?;
        time("hoisted rotation: digits", Some(floors.mod_up()), &mut || evaluator.mod_up(&a, scheme.gadget).map(drop))?;
        time("hoisted rotation: each", Some(floors.hoisted_rotation()), &mut || {
            evaluator.rotate_digits(&digits, &a, 1).map(drop)
        })?;
        time("encode", Some(floors.encode()), &mut || encode(PlainForm::Montgomery).map(drop))?;
        time("encrypt", None, &mut || scheme.encryptor.encrypt(&scheme.secret, &message).map(drop))?;
        time("decrypt + decode", None, &mut || decryptor.decrypt_real(&scheme.secret, &a).map(drop))?;
        time("rotation key", None, &mut || scheme.generator.key(&scheme.secret, rotation).map(drop))?;
        Ok(lines)
    }
}

impl Line {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "op": self.op, "threads": self.threads, "median_ms": self.timing.median * 1e3, "min_ms": self.timing.least * 1e3,
            "repetitions": self.timing.repetitions, "floor_bytes": self.floor.map(|f| f.bytes),
            "floor_multiplies": self.floor.map(|f| f.multiplies),
        })
    }
}
