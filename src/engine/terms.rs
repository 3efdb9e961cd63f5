//! On what terms a network runs: those it was compiled on, or what is asked for instead.

use super::{ClientSpec, Costs, Foreseen, PrepareOptions, Prepared, Rest, Result, run_spec};
use crate::nn::compiled::{Compiled, KeptPlan};
use crate::nn::simulate::Judge;
use crate::nn::{Model, Tensor};
use crate::plan::MemoryLimits;
use crate::wire::Expect;
use crate::wire::network::NetworkDigest;
use std::sync::Arc;

/// Most pictures that a run is tried for where the network was not compiled.
const MOST_TOGETHER: u32 = 64;

/// A parameter set, a bound on keys, and what was decided and said of a network on those. The default asks for nothing.
#[derive(Debug, Clone, Default)]
pub struct Terms {
    /// The parameter set; none: whichever the network needs.
    pub preset: Option<String>,
    /// Most bytes of keys.
    pub max_key_bytes: Option<u64>,
    /// The plans that were kept with the network for those.
    pub plans: Vec<KeptPlan>,
    /// The largest error of a result that compiling foresaw on that parameter set.
    pub expected_error: Option<f64>,
    /// What clients are told, on that parameter set and with those keys.
    pub client: Option<ClientSpec>,
    /// What its answers were when its fits were chosen.
    pub judge: Judge,
}

/// What a client is told a network for. What noise does to the results of a network that was not compiled is found out for those who
/// decrypt.
#[derive(Debug, Clone, Copy)]
pub enum Purpose<'a> {
    /// Keys and pictures.
    Encrypting,
    /// Answers, of this picture or one like it.
    Decrypting(&'a Tensor<f64>),
}

impl Terms {
    /// Those that a network was compiled on.
    pub fn of(compiled: &Compiled) -> Self {
        Self {
            preset: Some(compiled.preset.clone()),
            max_key_bytes: compiled.max_key_bytes,
            plans: compiled.plans.clone(),
            expected_error: compiled.client.as_ref().map(|client| client.noise),
            client: compiled.client.clone(),
            judge: compiled.report.get("judge").unwrap_or_default(),
        }
    }

    /// What is asked for, and these where nothing is. What was decided and said holds for what it was decided for alone.
    pub fn with(&self, preset: Option<&str>, max_key_bytes: Option<u64>) -> Self {
        let same = preset.is_none_or(|preset| self.preset.as_deref() == Some(preset));
        let same_keys = max_key_bytes.is_none_or(|most| self.max_key_bytes == Some(most));
        Self {
            preset: preset.map(str::to_owned).or_else(|| self.preset.clone()),
            max_key_bytes: max_key_bytes.or(self.max_key_bytes),
            plans: if same && same_keys { self.plans.clone() } else { Vec::new() },
            expected_error: self.expected_error.filter(|_| same),
            client: self.client.clone().filter(|_| same && same_keys),
            judge: self.judge,
        }
    }

    /// What is asked of a plan on these terms.
    pub fn options(&self, costs: Costs) -> PrepareOptions {
        PrepareOptions {
            limits: MemoryLimits::of_keys(self.max_key_bytes),
            kept: self.plans.clone(),
            costs,
            ..PrepareOptions::default()
        }
    }

    /// How many pictures the run takes that a key or a ciphertext is for, by the digest of the plan it carries; none if it is no run of the
    /// network with the digest `network` on these terms.
    pub fn pictures_of(&self, network: NetworkDigest, plan: Option<NetworkDigest>) -> Option<usize> {
        let mut counts: Vec<usize> = self.plans.iter().map(|plan| plan.together).collect();
        if counts.is_empty() {
            counts = (0..=MOST_TOGETHER.ilog2()).map(|log| 1 << log).collect();
        }
        counts.into_iter().find(|&k| plan == Some(network.together(k)))
    }

    /// What clients of a network that was prepared on these terms are told: what was said when it was compiled, or else what can be said
    /// now. `digest`: of the network on its terms.
    ///
    /// # Errors
    /// Those of [`Prepared::foresee`].
    pub fn client_spec(
        &self,
        network: &Model,
        digest: NetworkDigest,
        prepared: &Prepared,
        purpose: Purpose<'_>,
    ) -> Result<Arc<ClientSpec>> {
        if let Some(kept) = &self.client {
            let mut spec = kept.clone();
            let rest = spec.runs.first().map_or(Rest::Other, |run| run.rest);
            if spec.runs.iter().all(|run| run.pictures != prepared.lowered.together) {
                spec.runs.push(run_spec(prepared, digest, rest));
            }
            return Ok(Arc::new(spec));
        }
        // Nothing was seen of its inputs: all numbers are taken.
        let interval = vec![[-f64::MAX, f64::MAX]; network.input().shape.channels];
        let foreseen = match purpose {
            Purpose::Encrypting => Foreseen {
                error: self.expected_error.unwrap_or(0.0),
                errors: Vec::new(),
                rest: Rest::Other,
                interval,
                largest: f64::INFINITY,
            },
            Purpose::Decrypting(picture) => Foreseen { interval, ..prepared.foresee(network, std::slice::from_ref(picture))? },
        };
        Ok(Arc::new(prepared.client_spec(network, digest, &foreseen)))
    }
}

impl Prepared {
    /// What an encrypted input of the run is, and nothing larger, for reading one that comes from somebody else. `network`: the digest of
    /// the network on its terms.
    pub fn expected_input(&self, network: NetworkDigest) -> Expect<'_> {
        let (level, shards) = (self.plan.input_level(), self.plan.program().input_shards);
        Expect::ciphertext(network.together(self.lowered.together), level, shards).bounded(&self.params)
    }

    /// As [`Self::expected_input`], of the evaluation keys.
    pub fn expected_keys(&self, network: NetworkDigest) -> Expect<'_> {
        Expect::keys(network.together(self.lowered.together), self.plan.keys()).bounded(&self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Decisions;

    fn terms() -> Terms {
        let plans = vec![1, 4]
            .into_iter()
            .map(|together| KeptPlan {
                together,
                decisions: Decisions { input_level: 0, steps: Vec::new(), bootstrap_babies: Vec::new() },
                layouts: None,
            })
            .collect();
        Terms {
            preset: Some("a".into()),
            max_key_bytes: Some(9),
            plans,
            expected_error: Some(0.5),
            client: None,
            judge: Judge::Class,
        }
    }

    #[test]
    fn what_was_decided_holds_for_what_it_was_decided_for() {
        let own = terms();
        for (preset, most, plans, error) in [
            (None, None, 2, Some(0.5)),
            (Some("a"), Some(9), 2, Some(0.5)),
            (Some("b"), None, 0, None),
            (None, Some(8), 0, Some(0.5)),
        ] {
            let asked = own.with(preset, most);
            assert_eq!((asked.plans.len(), asked.expected_error), (plans, error), "{preset:?} {most:?}");
            assert_eq!((asked.preset.as_deref(), asked.max_key_bytes), (preset.or(Some("a")), most.or(Some(9))));
        }
    }

    #[test]
    fn a_file_tells_its_run_by_the_plan() {
        let network = NetworkDigest::of(&[b"network"]);
        assert_eq!(terms().pictures_of(network, Some(network.together(4))), Some(4));
        assert_eq!(terms().pictures_of(network, Some(network.together(2))), None, "no plan of two was kept");
        assert_eq!(Terms::default().pictures_of(network, Some(network.together(2))), Some(2));
        assert_eq!(Terms::default().pictures_of(network, None), None);
    }
}
