//! What a file is, by its first bytes: people rename files, download pages in place of them, and save weights without a network.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Bytes looked at, at either end of a file.
const LOOK: usize = 64 << 10;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::nn) enum Content {
    /// A header of JSON, then tensors.
    Safetensors,
    /// What may be ONNX, which has no mark of its own.
    Binary,
    /// Something else.
    Other {
        /// With an article.
        what: &'static str,
        /// What to do.
        advice: Cow<'static, str>,
    },
}

/// Both ends of a file.
struct Ends<'b> {
    start: &'b [u8],
    end: &'b [u8],
    bytes: u64,
}

impl Content {
    /// Of a file held in memory.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let (start, end) = (&bytes[..bytes.len().min(LOOK)], &bytes[bytes.len().saturating_sub(LOOK)..]);
        recognise(&Ends { start, end, bytes: bytes.len() as u64 })
    }

    /// Of a file, of which only the ends are read.
    pub(crate) fn of_file(path: &Path) -> std::io::Result<Self> {
        let about = std::fs::metadata(path)?;
        if about.is_dir() {
            return Ok(other("a folder", "name the model file in it; a SavedModel becomes ONNX with tf2onnx"));
        }
        if !about.is_file() {
            return Ok(other("a device or a pipe, no regular file", "write it to a file first, and name that"));
        }
        let mut file = File::open(path)?;
        let bytes = file.metadata()?.len();
        let (mut start, mut end) = (Vec::new(), Vec::new());
        Read::by_ref(&mut file).take(LOOK as u64).read_to_end(&mut start)?;
        file.seek(SeekFrom::Start(bytes.saturating_sub(LOOK as u64)))?;
        file.take(LOOK as u64).read_to_end(&mut end)?;
        Ok(recognise(&Ends { start: &start, end: &end, bytes }))
    }
}

fn other(what: &'static str, advice: impl Into<Cow<'static, str>>) -> Content {
    Content::Other { what, advice: advice.into() }
}

/// How weights without a network, or a network that only PyTorch reads, become a model.
const EXPORT: &str = "load it in PyTorch and export the network: torch.onnx.export(model.eval(), torch.randn(1, channels, height, \
                      width), \"model.onnx\")";
const TENSORFLOW: &str = "convert it to ONNX with tf2onnx (python -m tf2onnx.convert), or keras: model.export(\"model.onnx\", \
                          format=\"onnx\")";
const UNPACK: &str = "unpack it and name the model file that was in it";
const WEIGHTS: &str = "it holds arrays and no network: export the network with its weights to ONNX";

fn recognise(file: &Ends<'_>) -> Content {
    let start = file.start;
    let is = |magic: &[u8]| start.starts_with(magic);
    let at = |offset: usize, magic: &[u8]| start.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    if file.bytes == 0 {
        return other("an empty file", "copy or download it again");
    }
    if start.iter().chain(file.end).all(|b| *b == 0) {
        return other("a file of zeros", "it was not written to its end: copy or download it again");
    }
    // First: a header may have any length, so that the first bytes may be anything.
    if let Some(length) = start.first_chunk::<8>().map(|b| u64::from_le_bytes(*b))
        && start.get(8) == Some(&b'{')
        && length > 1
        && (length < file.bytes || length < 100 << 20)
    {
        return Content::Safetensors;
    }
    if is(b"PK\x03\x04") || is(b"PK\x05\x06") {
        return zip(file);
    }
    let known: [(&[u8], &'static str, &'static str); 21] = [
        (b"\x1f\x8b", "a gzip archive", "unpack it (gunzip, tar xzf) and name the model file that was in it"),
        (b"BZh", "a bzip2 archive", UNPACK),
        (b"\xfd7zXZ\0", "an xz archive", UNPACK),
        (b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
        (b"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
        (b"Rar!", "a rar archive", UNPACK),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes (.h5)", TENSORFLOW),
        (
            b"version https://git-lfs.github.com/spec/",
            "a pointer of git LFS, not the file it stands for",
            "get the file itself: git lfs pull, or download it from the page of the repository",
        ),
        (b"\x89PNG\r\n\x1a\n", "a picture (PNG)", "name the model first; pictures are what it is given"),
        (b"\xff\xd8\xff", "a picture (JPEG)", "name the model first; pictures are what it is given"),
        (b"GIF8", "a picture (GIF)", "name the model first; pictures are what it is given"),
        (b"\x93NUMPY", "an array of NumPy (.npy)", WEIGHTS),
        (b"GGUF", "a language model (GGUF)", "networks for pictures made of convolutions are run, from ONNX"),
        (b"ORTM", "a model of ONNX Runtime's own format (.ort)", "name the .onnx file that it was made from"),
        (b"%PDF", "a PDF document", "name a model file: ONNX, or what cipherlens compile wrote"),
        (b"\x7fELF", "a program", "name a model file: ONNX, or what cipherlens compile wrote"),
        (b"MZ", "a program", "name a model file: ONNX, or what cipherlens compile wrote"),
        (b"BM", "a picture (BMP)", "name the model first; pictures are what it is given"),
        (b"7767517\n", "the graph of an ncnn model", "name the ONNX file that it was made from"),
        (
            &crate::wire::container::MAGIC,
            "a file of cipherlens",
            "`cipherlens inspect` tells which; of these, a network is what `cipherlens compile` wrote, which a program reads with \
             nn::Compiled::read",
        ),
        (b"BC\xc0\xde", "compiled code", "name a model file: ONNX, or what cipherlens compile wrote"),
    ];
    if let Some((_, what, advice)) = known.into_iter().find(|(magic, ..)| is(magic)) {
        return other(what, advice);
    }
    if is(b"RIFF") && at(8, b"WEBP") {
        return other("a picture (WebP)", "name the model first; pictures are what it is given");
    }
    if at(4, b"TFL3") {
        return other("a TensorFlow Lite model (.tflite)", "convert it to ONNX: python -m tf2onnx.convert --tflite");
    }
    if at(257, b"ustar") {
        return other("a tar archive", UNPACK);
    }
    // Protocol 2 to 5 of pickle, as torch.save wrote before it wrote zip files.
    if matches!(start, [0x80, 2..=5, ..]) {
        return other("a pickle, as PyTorch wrote until version 1.6 (.pt, .pth)", EXPORT);
    }
    text(start).unwrap_or(Content::Binary)
}

/// What is in an archive, by the names of its files.
fn zip(file: &Ends<'_>) -> Content {
    let has = |name: &[u8]| [file.start, file.end].iter().any(|part| part.windows(name.len()).any(|w| w == name));
    match () {
        _ if has(b"constants.pkl") => other("a TorchScript model (.pt)", EXPORT),
        _ if has(b"/data.pkl") || has(b"data.pkl") => other("a file of PyTorch, weights or a pickled module (.pt, .pth)", EXPORT),
        _ if has(b"archive_format") || has(b"serialized_exported_program") => {
            other("an exported program of PyTorch (.pt2)", "write it as ONNX: torch.onnx.export(program, dynamo=True)")
        }
        _ if has(b"model.weights.h5") => other("a model of Keras (.keras)", TENSORFLOW),
        _ if has(b".npy") => other("arrays of NumPy (.npz)", WEIGHTS),
        _ if has(b".onnx") => other("a zip archive with an ONNX file in it", "unpack it and name the .onnx file"),
        _ => other("a zip archive", UNPACK),
    }
}

/// What a text is; none for what is no text.
fn text(start: &[u8]) -> Option<Content> {
    let head = &start[..start.len().min(1024)];
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let printable = |b: &u8| matches!(b, b'\t' | b'\n' | b'\r' | 0x20..=0x7e | 0x80..);
    // A character may be cut off at the end of what was read.
    let utf8 = std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true);
    // ONNX begins with the key of its first field, which is not printable: fields 1 to 3 are numbers or short texts.
    if !utf8 || !head.iter().all(printable) {
        return None;
    }
    let text = String::from_utf8_lossy(head);
    let text = text.trim_start();
    let lower = text.to_ascii_lowercase();
    let begins = |what: &[&str]| what.iter().any(|w| lower.starts_with(w));
    Some(match () {
        _ if begins(&["<!doctype html", "<html", "<head", "<!--"]) => other(
            "a web page, in place of what was to be downloaded",
            "download the file itself: look at the address, and whether it asks for a login",
        ),
        _ if begins(&["<?xml", "<net", "<"]) => {
            other("a text in XML, as OpenVINO writes (.xml)", "name the ONNX file that it was made from")
        }
        _ if begins(&["ir_version", "graph {", "producer_name", "opset_import", "<ir_version"]) => other(
            "ONNX written as text",
            "write it as binary: in Python, onnx.save(onnx.load(\"model.onnx\", format=\"textproto\"), \"binary.onnx\")",
        ),
        _ if begins(&["{", "["]) => other(
            "a text in JSON",
            "name the model itself: ONNX, or a safetensors file with the graph in its metadata (training/graph.py)",
        ),
        _ if begins(&["node {", "name:", "layer {", "input:"]) => {
            other("a network written as text (TensorFlow or Caffe)", "convert it to ONNX and name that file")
        }
        _ => other("a text", "name a model file: ONNX, or what cipherlens compile wrote"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        for (bytes, part) in [
            (&b""[..], "empty"),
            (&[0; 100], "zeros"),
            (b"PK\x03\x04....torch/data.pkl", "PyTorch"),
            (b"PK\x03\x04....m/code/x m/constants.pkl m/data.pkl", "TorchScript"),
            (b"PK\x03\x04....arr_0.npy", "npz"),
            (b"PK\x03\x04....config.json model.weights.h5", "keras"),
            (b"PK\x03\x04....model.onnx", "ONNX file in it"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"\x89HDF\r\n\x1a\n\0\0", "HDF5"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "LFS"),
            (b"\n <!DOCTYPE html><html>", "web page"),
            (b"{\"format\": \"layers-model\"}", "JSON"),
            (b"ir_version: 10\nproducer_name: \"pytorch\"\n", "ONNX written as text"),
            (b"\x89PNG\r\n\x1a\n", "picture"),
            (b"\x1c\0\0\0TFL3", "tflite"),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", "pickle"),
            (b"hello", "a text"),
        ] {
            let Content::Other { what, .. } = Content::of(bytes) else { panic!("{bytes:?} was taken for a model") };
            assert!(what.contains(part), "{what} for {part}");
        }
        assert_eq!(Content::of(b"\x08\0\0\0\0\0\0\0{}      "), Content::Safetensors);
        // A header of safetensors may have a length whose bytes are another format's mark.
        for mark in [*b"\x80\x02", *b"\x1f\x8b", *b"MZ", *b"BM", *b"BZ"] {
            let length = u64::from(u16::from_le_bytes(mark));
            let file = [&length.to_le_bytes()[..], b"{}", &vec![b' '; length as usize + 8]].concat();
            assert_eq!(Content::of(&file), Content::Safetensors, "{mark:?}");
        }
        assert_eq!(Content::of(b"\x08\x0a\x12\x07pytorch\x1a\x052.9.1"), Content::Binary);
        assert_eq!(Content::of(b"\x12\x07pytorch:\x02\x0a\0"), Content::Binary);
    }
}
