//! What a client is told of a planned network.

use super::{Foreseen, Prepared};
use crate::nn::Model;
use crate::wire::network::NetworkDigest;
use cipherlens_core::client::{ClientSpec, Rest, RunSpec};

/// Results of unseen pictures may be so many times as large as those of calibration; an answer beyond has left a fit,
/// or wrapped.
const BEYOND_SEEN: f64 = 8.0;

/// The run that was prepared, as a client needs it; `network` is the digest of the network on its terms.
pub fn run_spec(prepared: &Prepared, network: NetworkDigest, rest: Rest) -> RunSpec {
    let Prepared { lowered, plan, .. } = prepared;
    RunSpec {
        pictures: lowered.together,
        plan: network.together(lowered.together),
        slots: lowered.program.slots,
        input: lowered.input.clone(),
        input_level: plan.input_level(),
        output: lowered.output.clone(),
        rest,
        output_level: plan.output_level(),
        keys: plan.keys().to_vec(),
    }
}

impl Prepared {
    /// What a client has to know of the network, which has this digest on its terms, and nothing more: it can be given
    /// to anyone who may use the network. Of one run, the one prepared.
    pub fn client_spec(&self, network: &Model, digest: NetworkDigest, foreseen: &Foreseen) -> ClientSpec {
        let input = network.input();
        // What pictures of [0, 1] become; arrays that are fed as they are may reach further.
        let of_pictures = input.mean.iter().zip(&input.std).map(|(m, s)| [-m / s, (1.0 - m) / s]);
        let seen = foreseen.interval.iter().copied().chain(std::iter::repeat([f64::INFINITY, f64::NEG_INFINITY]));
        ClientSpec {
            name: network.name().into(),
            network: digest,
            params: self.params.literal().clone(),
            input: input.clone(),
            interval: of_pictures.zip(seen).map(|([a, b], [c, d])| [a.min(c), b.max(d)]).collect(),
            classes: network.classes().to_vec(),
            output_divisor: self.lowered.output_divisor,
            largest: super::answer::most(self).min(BEYOND_SEEN * foreseen.largest),
            noise: foreseen.error,
            runs: vec![run_spec(self, digest, foreseen.rest)],
        }
    }
}
