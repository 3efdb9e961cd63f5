//! Values in files beside the model, as exporters write them for all but small networks.
//!
//! A model says which file, from which byte and how many. The file must be in the model's folder, however it is named: a model
//! is not to choose what else is read. Nothing is read but the ranges that are used, after they were found to be in the file.

use super::OnnxError;
use super::schema::StringStringEntryProto;
use crate::nn::model::MAX_FILE_BYTES;
use std::cell::Cell;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

/// How to write a model that needs no other file.
const ONE_FILE: &str = "export into one file: torch.onnx.export(..., external_data=False)";

/// Where the files beside a model are.
pub(super) struct Folder<'p> {
    /// None: the model was given without one.
    path: Option<&'p Path>,
    /// Bytes that may still be read.
    left: Cell<u64>,
}

impl<'p> Folder<'p> {
    pub(super) fn new(path: Option<&'p Path>) -> Self {
        Self { path, left: Cell::new(MAX_FILE_BYTES) }
    }

    /// The `expected` bytes of a tensor.
    pub(super) fn read(&self, tensor: &str, entries: &[StringStringEntryProto], expected: usize) -> Result<Vec<u8>, OnnxError> {
        let entry = |key: &str| entries.iter().find(|e| e.key == key).map(|e| e.value.as_str());
        let location = entry("location").unwrap_or("");
        let bad = |reason: String| OnnxError::ExternalData { tensor: tensor.to_owned(), file: location.to_owned(), reason };
        let number = |key: &str| match entry(key) {
            None => Ok(None),
            Some(text) => text.trim().parse().map(Some).map_err(|_| bad(format!("its {key} is {text:?}, which is no number"))),
        };
        let (offset, length): (Option<u64>, Option<u64>) = (number("offset")?, number("length")?);
        let (offset, expected) = (offset.unwrap_or(0), expected as u64);
        if let Some(length) = length.filter(|length| *length != expected) {
            return Err(bad(format!("it is said to take {length} bytes there, its shape takes {expected}")));
        }
        let place = self.find(location, &bad)?;
        let system = |e: std::io::Error| bad(format!("it cannot be read: {e}"));
        let about = place.metadata().map_err(system)?;
        if !about.is_file() {
            return Err(bad("that is no file".into()));
        }
        let size = about.len();
        if offset.checked_add(expected).is_none_or(|end| end > size) {
            let reason = format!(
                "it is said to be at byte {offset} and to take {expected}, but the file has {size}: it was cut off, or belongs to \
                 another model; copy it again"
            );
            return Err(bad(reason));
        }
        let Some(left) = self.left.get().checked_sub(expected) else {
            return Err(bad(format!("all values together take more than the limit of {MAX_FILE_BYTES} bytes")));
        };
        self.left.set(left);
        let mut bytes = vec![0; expected as usize];
        let mut file = File::open(&place).map_err(system)?;
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map_err(system)?;
        Ok(bytes)
    }

    /// The file that a model means.
    fn find(&self, location: &str, bad: &impl Fn(String) -> OnnxError) -> Result<PathBuf, OnnxError> {
        let Some(folder) = self.path else {
            return Err(bad(format!(
                "it is not known in which folder, since the model was given as bytes; give its path (Model::from_file), or {ONE_FILE}"
            )));
        };
        let relative = Path::new(location);
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
        if location.is_empty() || location.contains('\0') || !relative.components().all(inside) {
            return Err(bad(format!("only files in the model's own folder are read; {ONE_FILE}")));
        }
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let missing = |e: std::io::Error| {
            let place = shown.display();
            match e.kind() {
                std::io::ErrorKind::NotFound => bad(format!(
                    "it is not in the folder {place}: put it beside the model under the name it had when it was written, or {ONE_FILE}"
                )),
                _ => bad(format!("it cannot be found in the folder {place}: {e}")),
            }
        };
        let real = shown.join(relative).canonicalize().map_err(missing)?;
        if !real.starts_with(shown.canonicalize().map_err(missing)?) {
            return Err(bad(format!(
                "it is a link that leads out of the model's folder: copy the file itself there, or {ONE_FILE}"
            )));
        }
        Ok(real)
    }
}
