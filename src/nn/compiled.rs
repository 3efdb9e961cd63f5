//! A network ready to run encrypted, in a file: the model with its fitted activations, ranges and normalisation, the parameter set
//! it was planned for, and what compiling found. A [`container`] of one kind: versioned, bounded, hashed.

use super::model::{MAX_FILE_BYTES, Model, ModelError};
use super::notes::{Notes, NotesError};
use crate::plan::Decisions;
use crate::wire::network::NetworkDigest;
use crate::wire::{Kind, WireError, container};
use cipherlens_core::client::ClientSpec;
use serde::{Deserialize, Serialize};
use std::path::Path;

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPlan {
    /// Pictures in a run.
    pub together: usize,
    /// What was decided.
    pub decisions: Decisions,
}

/// The header of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Metadata {
    preset: String,
    max_key_bytes: Option<u64>,
    plans: Vec<KeptPlan>,
    client: Option<ClientSpec>,
    /// JSON.
    report: String,
    /// Bytes of the model file in the chunks.
    bytes: u64,
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
        let plans = serde_json::to_vec(&self.plans).unwrap_or_default();
        NetworkDigest::of(&[b"compiled", &self.model.written_as(""), self.preset.as_bytes(), &most, &plans])
    }

    /// Writes it: to a temporary file first, so that there is never half a file.
    ///
    /// # Errors
    /// [`CompiledError::File`] where something else than a compiled network has the name, or the system refuses to write.
    pub fn write(&self, path: &Path) -> Result<(), CompiledError> {
        let mut bytes = self.model.to_bytes();
        let metadata = Metadata {
            preset: self.preset.clone(),
            max_key_bytes: self.max_key_bytes,
            plans: self.plans.clone(),
            client: self.client.clone(),
            report: self.report.to_string(),
            bytes: bytes.len() as u64,
        };
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
        let mut reader = container::Reader::<Metadata>::open(path, Kind::CompiledNetwork)?;
        let sizes: Vec<usize> = reader.chunks().iter().map(|c| c.words as usize).collect();
        let (held, said) = (4 * sizes.iter().sum::<usize>() as u64, reader.metadata.bytes);
        if said > MAX_FILE_BYTES || said.next_multiple_of(4) != held {
            return Err(WireError::Length { what: "the model", expected: said, found: held }.into());
        }
        let mut bytes = Vec::with_capacity(held as usize);
        for (i, words) in sizes.into_iter().enumerate() {
            bytes.extend(reader.chunk(i, words)?.into_iter().flat_map(u32::to_le_bytes));
        }
        bytes.truncate(said as usize);
        let report = reader.metadata.report.parse().map_err(|e: NotesError| CompiledError::Report(e.to_string()))?;
        let Metadata { preset, max_key_bytes, plans, client, .. } = reader.metadata;
        let compiled = Self { model: Model::from_bytes(&bytes)?, preset, max_key_bytes, plans, client, report };
        compiled.check_client()?;
        Ok(compiled)
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
