//! Model files of every kind: what one is, its content says and not its name.

use super::model::{Content, Model, ModelError, read_file};
use super::onnx::{OnnxError, OnnxOptions, Results};
use std::path::Path;

impl Model {
    /// Reads a model file, of this program or of ONNX: what it is, its content says and not its name.
    ///
    /// # Errors
    /// As [`Self::from_file_with`].
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        Self::from_file_with(path, &OnnxOptions::default())
    }

    /// As [`Self::from_file`], with what an ONNX file does not say.
    ///
    /// # Errors
    /// [`ModelError::Read`], [`ModelError::FileTooLarge`], [`ModelError::OtherFile`], [`OnnxError::Results`] where results are asked of a
    /// file that is none of ONNX; those of [`Self::from_bytes`] or
    /// [`Self::from_onnx_file`], by what it is.
    pub fn from_file_with(path: &Path, options: &OnnxOptions) -> Result<Self, ModelError> {
        let read = |source| ModelError::Read { path: path.to_path_buf(), source };
        let content = Content::of_file(path).map_err(read)?;
        if content == Content::Binary {
            let mut options = options.clone();
            if options.name.is_empty() {
                options.name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            }
            return Self::from_onnx_file(path, &options);
        }
        match content {
            Content::Other { what, advice } => Err(ModelError::OtherFile { what, advice }),
            _ if options.results != Results::Only => {
                let reason = "results are asked for, and its one result is settled: it is no ONNX file".into();
                Err(OnnxError::Results { reason, found: Vec::new() }.into())
            }
            _ => Self::from_bytes(&read_file(path)?),
        }
    }
}
