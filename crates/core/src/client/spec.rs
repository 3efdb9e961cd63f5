//! What a client has to know of a network, and no weights: a file of kilobytes beside the compiled network.

use super::error::ClientError;
use super::input::Input;
use super::layout::Layout;
use super::tensor::Shape;
use crate::ckks::{KeyRequest, Level, Params, ParamsLiteral, Scale};
use crate::wire::Kind;
use crate::wire::container::{self, Contents, Opened};
use crate::wire::network::NetworkDigest;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Most pictures in a run.
pub const MAX_PICTURES: usize = 1 << 16;
/// Most characters of the name of a network or a class.
const MAX_NAME: usize = 1 << 12;
/// Most classes that have names.
const MAX_CLASSES: usize = 1 << 16;

/// All that a client needs of a network: to make keys, encrypt pictures, and tell an answer from what is none.
///
/// It has no weights, so a client cannot see whether a picture drives the network out of what it was fitted for, as
/// whoever has the network can (`cipherlens::nn::simulate::check_picture`): it holds inputs against [`Self::interval`],
/// and answers against [`Self::largest`] and the slots that must be empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClientSpec {
    /// What the network is called.
    pub name: String,
    /// The network, on the terms it was planned on.
    pub network: NetworkDigest,
    /// The parameter set, in full: a client need not have the same presets.
    pub params: ParamsLiteral,
    /// Shape and normalisation of the input, and how pictures are brought to it.
    pub input: Input,
    /// What each channel of an input must keep to, once normalised: `[least, most]`.
    pub interval: Vec<[f64; 2]>,
    /// Names of the classes, in the order of the logits; none where the network has no names.
    pub classes: Vec<String>,
    /// What results were divided by before they were encrypted.
    pub output_divisor: f64,
    /// The largest magnitude that a result may have; beyond, numbers may have wrapped round modulo q.
    pub largest: f64,
    /// The largest error of a result that encryption is expected to make.
    pub noise: f64,
    /// How the network runs: for one picture, for several at once.
    pub runs: Vec<RunSpec>,
}

/// One way to run the network: so many pictures at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunSpec {
    /// Pictures in a run, a power of two.
    pub pictures: usize,
    /// The plan, and with it the network: what keys, ciphertexts and answers of this run carry.
    pub plan: NetworkDigest,
    /// Slots of a shard, of all pictures together.
    pub slots: usize,
    /// Where the elements of one picture lie.
    pub input: Layout,
    /// The level that pictures are encrypted at.
    pub input_level: Level,
    /// Where the elements of one result lie.
    pub output: Layout,
    /// What the slots of the answer hold that no element of the result has.
    pub rest: Rest,
    /// The level of answers.
    pub output_level: Level,
    /// The keys that a server needs.
    pub keys: Vec<KeyRequest>,
}

/// What an answer holds where the result has no element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Rest {
    /// Nothing.
    Zeros,
    /// The result again: what slot s holds, slot `s % period` holds too.
    Copies {
        /// A power of two, below the slots of one picture.
        period: usize,
    },
    /// Numbers that depend on the picture.
    Other,
}

impl Rest {
    /// What slots `[shard][slot]` of one picture's result hold beside its elements, where they are below `noise` of it.
    pub fn of(layout: &Layout, slots: &[Vec<f64>], noise: f64) -> Self {
        let elements = layout.elements();
        let candidates =
            std::iter::once(Rest::Zeros).chain((0..layout.slots().ilog2()).map(|log| Rest::Copies { period: 1 << log }));
        candidates.into_iter().find(|rest| rest.deviation(&elements, slots) <= noise).unwrap_or(Rest::Other)
    }

    /// The largest deviation of slots `[shard][slot]` of one picture from what this says of them.
    pub fn error(self, layout: &Layout, slots: &[Vec<f64>]) -> f64 {
        self.deviation(&layout.elements(), slots)
    }

    fn deviation(self, elements: &[Vec<Option<u32>>], slots: &[Vec<f64>]) -> f64 {
        let mut worst: f64 = 0.0;
        for (shard, elements) in slots.iter().zip(elements) {
            for (s, (value, element)) in shard.iter().zip(elements).enumerate() {
                if element.is_some() {
                    continue;
                }
                let expected = match self {
                    Rest::Other => continue,
                    Rest::Zeros => 0.0,
                    // What stands for an element must be one; slots that stand for none may hold anything small enough.
                    Rest::Copies { period } => shard.get(s % period).copied().unwrap_or(0.0),
                };
                worst = worst.max((value - expected).abs());
                if value.is_nan() {
                    return f64::INFINITY;
                }
            }
        }
        worst
    }
}

/// What to call a class: its name, or its index where they have no names.
pub fn class_name(classes: &[String], class: usize) -> String {
    classes.get(class).cloned().unwrap_or_else(|| format!("class {class}"))
}

/// The logits of the classes of a result: its own, or, of a single number, 0 and it: class 1 where it is above 0.
pub fn class_logits(result: &[f64]) -> Vec<f64> {
    if let [one] = result { vec![0.0, *one] } else { result.to_vec() }
}

impl ClientSpec {
    /// The run that takes so many pictures with the fewest slots.
    ///
    /// # Errors
    /// [`ClientError::Pictures`] for none, or more than any run takes.
    pub fn run(&self, pictures: usize) -> Result<&RunSpec, ClientError> {
        let most = self.runs.iter().map(|run| run.pictures).max().unwrap_or(0);
        let fitting = self.runs.iter().filter(|run| pictures > 0 && run.pictures >= pictures).min_by_key(|run| run.pictures);
        fitting.ok_or(ClientError::Pictures { most, found: pictures })
    }

    /// The run with this plan, which `what` was made for (as in `answer was`).
    ///
    /// # Errors
    /// [`ClientError::Network`] where there is none.
    pub fn run_of(&self, plan: Option<NetworkDigest>, what: &'static str) -> Result<&RunSpec, ClientError> {
        let found = self.runs.iter().find(|run| Some(run.plan) == plan);
        found.ok_or(ClientError::Network { what, expected: self.network, found: plan })
    }

    /// The parameter set. Costs what its tables cost: a second for the largest.
    ///
    /// # Errors
    /// [`ClientError::Params`] for one that must not be used.
    pub fn params(&self) -> Result<Arc<Params>, ClientError> {
        Ok(Params::new(self.params.clone())?)
    }

    /// Shape of the result.
    pub fn output(&self) -> Shape {
        self.runs.first().map_or(Shape::new(1, 1, 1), |run| run.output.shape())
    }

    /// What to call a class: [`class_name`].
    pub fn class_name(&self, class: usize) -> String {
        class_name(&self.classes, class)
    }

    /// Decimal places of a result that the noise of encryption leaves.
    pub fn decimals(&self) -> usize {
        if self.noise > 0.0 { (-self.noise.log10()).floor().clamp(0.0, 15.0) as usize } else { 15 }
    }

    /// A result with the digits that the noise leaves, and no others.
    pub fn rounded(&self, value: f64) -> f64 {
        let unit = 10f64.powi(self.decimals() as i32);
        (value * unit).round() / unit
    }

    /// Checks that everything in it fits together; `params` are its own.
    ///
    /// # Errors
    /// [`ClientError::Spec`] says what does not.
    pub fn check(&self, params: &Params) -> Result<(), ClientError> {
        let refuse = |what, expected: String, found: String| Err(ClientError::Spec { what, expected, found });
        let input = &self.input;
        let positive = |x: f64| x.is_finite() && x > 0.0;
        let lengths = [input.mean.len(), input.std.len(), self.interval.len()];
        if lengths != [input.shape.channels; 3] {
            return refuse(
                "means, deviations and intervals",
                format!("{} of each", input.shape.channels),
                format!("{lengths:?}"),
            );
        }
        let finite = input.mean.iter().all(|m| m.is_finite()) && input.std.iter().all(|s| positive(*s));
        if !finite || self.interval.iter().any(|[a, b]| !(a.is_finite() && b.is_finite() && a <= b)) {
            return refuse("normalisation", "finite numbers, positive deviations".into(), format!("{:?}", self.interval));
        }
        if !(positive(self.output_divisor) && positive(self.largest) && self.noise.is_finite() && self.noise >= 0.0) {
            let found = format!("{}, {}, {}", self.output_divisor, self.largest, self.noise);
            return refuse("divisor, largest result and noise", "positive numbers".into(), found);
        }
        if self.name.len() > MAX_NAME || self.classes.len() > MAX_CLASSES || self.classes.iter().any(|c| c.len() > MAX_NAME) {
            return refuse("names", format!("at most {MAX_CLASSES} of {MAX_NAME} bytes"), format!("{}", self.classes.len()));
        }
        if self.runs.is_empty() {
            return refuse("runs", "one at least".into(), "none".into());
        }
        for run in &self.runs {
            run.check(self, params)?;
        }
        Ok(())
    }

    /// Writes it to a file; see [`container`].
    ///
    /// # Errors
    /// [`ClientError::File`].
    pub fn write(&self, path: &Path) -> Result<(), ClientError> {
        Ok(container::write(path, Kind::ClientSpec, self, &[], false)?)
    }

    /// Writes the same bytes to anything.
    ///
    /// # Errors
    /// [`ClientError::File`].
    pub fn write_to(&self, mut output: impl Write) -> Result<(), ClientError> {
        let chunk = |_| Ok((&[][..]).into());
        let contents = Contents { kind: Kind::ClientSpec, metadata: self, sizes: &[], chunk: &chunk };
        Ok(container::write_to(&mut output, &contents)?)
    }

    /// Reads one and checks it, with the parameter set it names. Nothing in a file makes this panic or take more memory
    /// than the tables of the largest parameter set.
    ///
    /// # Errors
    /// [`ClientError::File`] for a file that cannot be read, [`ClientError::Params`] and [`ClientError::Spec`] for one
    /// that must not be used.
    pub fn read(path: &Path) -> Result<(Self, Arc<Params>), ClientError> {
        Self::checked(Opened::path(path)?)
    }

    /// As [`Self::read`].
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_from(input: impl Read) -> Result<(Self, Arc<Params>), ClientError> {
        Self::checked(Opened::input(input)?)
    }

    fn checked<R: Read>(opened: Opened<R>) -> Result<(Self, Arc<Params>), ClientError> {
        let reader = opened.header::<Self>(Kind::ClientSpec)?;
        let spec = reader.metadata.clone();
        reader.finish()?;
        let params = spec.params()?;
        spec.check(&params)?;
        Ok((spec, params))
    }
}

impl RunSpec {
    fn check(&self, spec: &ClientSpec, params: &Params) -> Result<(), ClientError> {
        let refuse = |what, expected: String, found: String| Err(ClientError::Spec { what, expected, found });
        if !self.pictures.is_power_of_two() || self.pictures > MAX_PICTURES {
            return refuse("pictures in a run", format!("a power of two, at most {MAX_PICTURES}"), self.pictures.to_string());
        }
        if self.plan != spec.network.together(self.pictures) {
            let expected = spec.network.together(self.pictures).to_string();
            return refuse("plan of a run", expected, self.plan.to_string());
        }
        if !self.slots.is_power_of_two() || self.slots > params.slots() {
            return refuse("slots", format!("a power of two, at most {}", params.slots()), self.slots.to_string());
        }
        for (what, layout) in [("layout of the input", &self.input), ("layout of the output", &self.output)] {
            if layout.slots().checked_mul(self.pictures) != Some(self.slots) {
                let expected = format!("{} slots for each of {} pictures", self.slots / self.pictures, self.pictures);
                return refuse(what, expected, format!("{} slots", layout.slots()));
            }
        }
        if self.input.shape() != spec.input.shape || self.output.shape() != spec.output() {
            let found = format!("{} and {}", self.input.shape(), self.output.shape());
            return refuse("shapes of a run", format!("{} and {}", spec.input.shape, spec.output()), found);
        }
        if let Rest::Copies { period } = self.rest
            && (!period.is_power_of_two() || period >= self.output.slots())
        {
            return refuse("period of the answer", "a power of two below its slots".into(), period.to_string());
        }
        for level in [self.input_level, self.output_level] {
            params.check_level(level).map_err(ClientError::from)?;
        }
        for request in &self.keys {
            request.check(params)?;
        }
        Ok(())
    }

    /// The scale of answers.
    pub fn output_scale(&self, params: &Params) -> Scale {
        params.scale(self.output_level)
    }
}
