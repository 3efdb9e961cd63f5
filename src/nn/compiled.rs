//! A network ready to run encrypted, in a file: the model with its fitted activations, ranges and normalisation, the parameter set
//! it was planned for, and what compiling found. A [`container`] of one kind: versioned, bounded, hashed.

use super::layout::{Layout, LayoutError, StoredLayout};
use super::model::{MAX_FILE_BYTES, Model, ModelError};
use super::notes::{Notes, NotesError};
use crate::plan::Decisions;
use crate::wire::network::NetworkDigest;
use crate::wire::{Kind, WireError, container};
use cipherlens_core::client::ClientSpec;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::Arc;

/// A compiled network.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The model; none of its activations is left to fit.
    pub model: Model,
    /// The parameter set it was planned for.
    pub preset: String,
    /// Most bytes of keys it was planned with, where that was asked for.
    pub max_key_bytes: Option<u64>,
    /// Its plans on that parameter set. Client and server take them as they are.
    pub plans: Vec<KeptPlan>,
    /// What clients are told of it.
    pub client: Option<ClientSpec>,
    /// What compiling found (calibration, accuracy, plan), for people and tools.
    pub report: Notes,
}

/// A plan of a compiled network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPlan {
    /// Pictures in a run.
    pub together: usize,
    /// What was decided.
    pub decisions: Decisions,
    /// The layouts that it is for ([`super::Lowered::chosen`]). None in files of format 2: those of [`super::lower::Layouts::Cheapest`],
    /// which are found the same way for ever.
    pub layouts: Option<Vec<Arc<Layout>>>,
}

/// A plan in a file of format 2.
#[derive(Debug, Serialize, Deserialize)]
struct StoredPlan {
    together: usize,
    decisions: Decisions,
}

/// Most places of all layouts of a plan in a file: checking one whose places may meet takes a moment for each.
const MOST_PLACES: usize = 1 << 28;

/// Layouts in a file of format 3: the different ones, and which of them each value has.
#[derive(Debug, Serialize, Deserialize)]
struct StoredLayouts {
    different: Vec<StoredLayout>,
    of_values: Vec<u32>,
}

/// The header of a file of format 2, and the beginning of one of format 3.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    preset: String,
    max_key_bytes: Option<u64>,
    plans: Vec<StoredPlan>,
    client: Option<ClientSpec>,
    /// JSON.
    report: String,
    /// Bytes of the model file in the chunks.
    bytes: u64,
}

/// The header of a file of format 3: with the layouts of each plan.
#[derive(Debug, Serialize, Deserialize)]
struct MetadataWithLayouts {
    of_before: Metadata,
    layouts: Vec<Option<StoredLayouts>>,
}

impl StoredLayouts {
    fn of(layouts: &[Arc<Layout>]) -> Self {
        let mut different: Vec<&Arc<Layout>> = Vec::new();
        let mut index = |layout| {
            different.iter().position(|l| *l == layout).unwrap_or_else(|| {
                different.push(layout);
                different.len() - 1
            }) as u32
        };
        let of_values = layouts.iter().map(&mut index).collect();
        Self { different: different.into_iter().map(|l| (**l).clone().into()).collect(), of_values }
    }

    /// The layout of each value.
    fn resolved(self) -> Result<Vec<Arc<Layout>>, CompiledError> {
        let places = self.different.iter().map(StoredLayout::places).fold(0, usize::saturating_add);
        if places > MOST_PLACES {
            let (expected, found) = (format!("at most {MOST_PLACES}"), places.to_string());
            return Err(WireError::Shape { what: "places of layouts", expected, found }.into());
        }
        let checked = |stored| Layout::try_from(stored).map(Arc::new);
        let different = self.different.into_iter().map(checked).collect::<Result<Vec<_>, LayoutError>>()?;
        let one = |at: u32| {
            let (expected, found) = (format!("one of {}", different.len()), at.to_string());
            let none = || WireError::Shape { what: "layout of a value", expected, found }.into();
            different.get(at as usize).cloned().ok_or_else(none)
        };
        self.of_values.into_iter().map(one).collect()
    }
}

/// Why a compiled network cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CompiledError {
    /// The file around the model.
    #[error(transparent)]
    File(#[from] WireError),
    /// The model in it.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A layout in it gives two values one place, or is for too many.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The report is no JSON.
    #[error("the report in the file is not valid: {0}")]
    Report(String),
}

impl Compiled {
    /// Whether a file begins like one of this program, and is a compiled network. Of a file of another version only its reader
    /// can say more.
    pub fn is_one(path: &Path) -> bool {
        matches!(container::kind_of(path), Ok(Kind::CompiledNetwork) | Err(WireError::Version { .. }))
    }

    /// What its keys and ciphertexts are known by: anything that changes its answers or its plan changes it. The report and its name do
    /// not.
    pub fn digest(&self) -> NetworkDigest {
        let most = self.max_key_bytes.map_or(Vec::new(), |bytes| bytes.to_le_bytes().to_vec());
        let (plans, layouts) = self.stored_plans();
        let plans = serde_json::to_vec(&plans).unwrap_or_default();
        let model = self.model.written_as("");
        let mut parts: Vec<&[u8]> = vec![b"compiled", &model, self.preset.as_bytes(), &most, &plans];
        let layouts = layouts.iter().any(Option::is_some).then(|| serde_json::to_vec(&layouts).unwrap_or_default());
        parts.extend(layouts.as_deref());
        NetworkDigest::of(&parts)
    }

    fn stored_plans(&self) -> (Vec<StoredPlan>, Vec<Option<StoredLayouts>>) {
        let one = |plan: &KeptPlan| {
            let stored = StoredPlan { together: plan.together, decisions: plan.decisions.clone() };
            (stored, plan.layouts.as_deref().map(StoredLayouts::of))
        };
        self.plans.iter().map(one).unzip()
    }

    /// Writes it: to a temporary file first, so that there is never half a file.
    ///
    /// # Errors
    /// [`CompiledError::File`] where something else than a compiled network has the name, or the system refuses to write.
    pub fn write(&self, path: &Path) -> Result<(), CompiledError> {
        let mut bytes = self.model.to_bytes();
        let (plans, layouts) = self.stored_plans();
        let of_before = Metadata {
            preset: self.preset.clone(),
            max_key_bytes: self.max_key_bytes,
            plans,
            client: self.client.clone(),
            report: self.report.to_string(),
            bytes: bytes.len() as u64,
        };
        let metadata = MetadataWithLayouts { of_before, layouts };
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        let words: Vec<u32> = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let chunks: Vec<&[u32]> = words.chunks(container::MAX_CHUNK_WORDS).collect();
        Ok(container::write(path, Kind::CompiledNetwork, &metadata, &chunks, false)?)
    }

    /// Reads one. Nothing in a file makes it panic or allocate more than a small multiple of the file.
    ///
    /// # Errors
    /// [`CompiledError::File`] for a file that cannot be read, is damaged or no compiled network, or whose description for clients is of
    /// another one; [`CompiledError::Model`] and [`CompiledError::Report`] for what is in it.
    pub fn read(path: &Path) -> Result<Self, CompiledError> {
        let opened = container::Opened::path(path)?;
        let kind = Kind::CompiledNetwork;
        let (metadata, layouts, bytes) = if opened.version() < kind.version() {
            let reader = opened.header::<Metadata>(kind)?;
            let (metadata, bytes) = Self::read_model(reader, |metadata| metadata.bytes)?;
            (metadata, None, bytes)
        } else {
            let reader = opened.header::<MetadataWithLayouts>(kind)?;
            let (MetadataWithLayouts { of_before, layouts }, bytes) = Self::read_model(reader, |m| m.of_before.bytes)?;
            (of_before, Some(layouts), bytes)
        };
        let report = metadata.report.parse().map_err(|e: NotesError| CompiledError::Report(e.to_string()))?;
        let Metadata { preset, max_key_bytes, plans, client, .. } = metadata;
        let layouts = layouts.unwrap_or_else(|| plans.iter().map(|_| None).collect());
        if layouts.len() != plans.len() {
            let (expected, found) = (plans.len().to_string(), layouts.len().to_string());
            return Err(WireError::Shape { what: "plans with layouts", expected, found }.into());
        }
        let plan = |(StoredPlan { together, decisions }, layouts): (StoredPlan, Option<StoredLayouts>)| {
            let layouts = layouts.map(StoredLayouts::resolved).transpose()?;
            Ok(KeptPlan { together, decisions, layouts })
        };
        let plans = plans.into_iter().zip(layouts).map(plan).collect::<Result<Vec<_>, CompiledError>>()?;
        let compiled = Self { model: Model::from_bytes(&bytes)?, preset, max_key_bytes, plans, client, report };
        compiled.check_client()?;
        Ok(compiled)
    }

    /// The metadata, of which `said` tells how many bytes the model has, and those bytes.
    fn read_model<M>(mut reader: container::Reader<M>, said: impl Fn(&M) -> u64) -> Result<(M, Vec<u8>), CompiledError> {
        let sizes: Vec<usize> = reader.chunks().iter().map(|c| c.words as usize).collect();
        let (held, said) = (4 * sizes.iter().sum::<usize>() as u64, said(&reader.metadata));
        if said > MAX_FILE_BYTES || said.next_multiple_of(4) != held {
            return Err(WireError::Length { what: "the model", expected: said, found: held }.into());
        }
        let mut bytes = Vec::with_capacity(held as usize);
        for (i, words) in sizes.into_iter().enumerate() {
            bytes.extend(reader.chunk(i, words)?.into_iter().flat_map(u32::to_le_bytes));
        }
        bytes.truncate(said as usize);
        Ok((reader.metadata, bytes))
    }

    /// Whether what clients are told is of this very network and its plans.
    fn check_client(&self) -> Result<(), CompiledError> {
        let (expected, found) = (self.digest(), self.client.as_ref().map(|client| client.network));
        if found.is_none_or(|found| found == expected) {
            return Ok(());
        }
        Err(WireError::Network { what: "description for clients was", expected, found }.into())
    }
}
