//! Inputs that are no pictures: arrays in `.npy` files, as `numpy.save` writes them.
//!
//! An array is `[channels, rows, columns]`, or `[count, channels, rows, columns]` for several inputs. The header is bounded and
//! parsed whole; values are read one input at a time, so that a file of any length takes the memory of one.

use super::failure::{Class, Failure, Outcome};
use super::place::write_new;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// First bytes of a file.
const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Longest header, bytes; numpy writes 118.
const MAX_HEADER: usize = 1 << 16;
/// Most values of one input.
const MAX_VALUES: u64 = 1 << 26;

/// Numbers in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Float32,
    Float64,
    Byte,
}

impl Kind {
    fn bytes(self) -> u64 {
        match self {
            Self::Float32 => 4,
            Self::Float64 => 8,
            Self::Byte => 1,
        }
    }
}

/// An array file whose header is read.
#[derive(Debug)]
pub struct Array {
    path: PathBuf,
    kind: Kind,
    /// How many inputs it holds.
    pub count: usize,
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// Where the values begin.
    start: u64,
}

/// Writes numbers of double precision, the last axis fastest, to a new file that its owner alone may read.
pub(crate) fn write(path: &Path, dims: [usize; 4], values: &[f64]) -> Outcome {
    let shape = dims.map(|d| d.to_string()).join(", ");
    let mut header = format!("{{'descr': '<f8', 'fortran_order': False, 'shape': ({shape}), }}");
    // Numbers begin at a multiple of 64 bytes, and a line ends before them.
    let end = MAGIC.len() + 4 + header.len() + 1;
    header += &" ".repeat(end.next_multiple_of(64) - end);
    header.push('\n');
    let mut bytes = Zeroizing::new(Vec::with_capacity(end + 64 + 8 * values.len()));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    values.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes()));
    write_new(path, &bytes)
}

/// One input.
#[derive(Debug, Clone)]
pub struct Numbers {
    /// Channels, rows, columns.
    pub shape: [usize; 3],
    /// `[channel][row][column]`; bytes divided by 255.
    pub values: Zeroizing<Vec<f64>>,
    /// Whether they were bytes, which are pixels still to be normalised.
    pub pixels: bool,
}

/// Whether a file is named like an array.
pub fn is_named_so(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy"))
}

fn refuse(path: &Path, why: impl Into<String>, advice: &str) -> Failure {
    Failure::new(Class::BadInput, format!("cannot read the array {}", path.display()), why, advice)
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> Failure + '_ {
    move |e| {
        let what = format!("cannot read the array {}", path.display());
        Failure::from_error(Class::BadInput, what, &e, "name a .npy file that you may read")
    }
}

impl Array {
    /// Reads a header, and checks that the file has as many values as it says.
    ///
    /// # Errors
    /// [`Class::BadInput`] for a file that cannot be read, is no array, has another length than its header says, or another number type,
    /// order or shape than is read.
    pub fn open(path: &Path) -> Outcome<Self> {
        let again = "save it again: numpy.save(file, array.astype(numpy.float32))";
        let mut file = File::open(path).map_err(unreadable(path))?;
        let length = file.metadata().map_err(unreadable(path))?.len();
        let mut prelude = Vec::new();
        Read::by_ref(&mut file).take(12).read_to_end(&mut prelude).map_err(unreadable(path))?;
        if !prelude.starts_with(MAGIC) || prelude.len() < 12 {
            return Err(refuse(path, "it does not begin like a .npy file", again));
        }
        let (size, start) = match prelude[6] {
            1 => (usize::from(u16::from_le_bytes([prelude[8], prelude[9]])), 10),
            2 | 3 => (u32::from_le_bytes([prelude[8], prelude[9], prelude[10], prelude[11]]) as usize, 12),
            version => return Err(refuse(path, format!("it has .npy version {version}; 1 to 3 are read"), again)),
        };
        if size > MAX_HEADER {
            return Err(refuse(path, format!("its header has {size} bytes, more than {MAX_HEADER}"), again));
        }
        let mut header = Vec::new();
        file.seek(SeekFrom::Start(start)).map_err(unreadable(path))?;
        file.take(size as u64).read_to_end(&mut header).map_err(unreadable(path))?;
        if header.len() != size {
            return Err(refuse(path, "it ends within its header", again));
        }
        let header = Header::parse(&String::from_utf8_lossy(&header)).map_err(|why| refuse(path, why, again))?;
        let kind = match header.descr.as_str() {
            "<f4" => Kind::Float32,
            "<f8" => Kind::Float64,
            "|u1" | "u1" | "<u1" => Kind::Byte,
            other => {
                let why = format!("its numbers are of type {other:?}; float32 (<f4), float64 (<f8) and uint8 (|u1) are read");
                return Err(refuse(path, why, again));
            }
        };
        if header.fortran_order {
            return Err(refuse(path, "it is in Fortran order", "save numpy.ascontiguousarray(array) instead"));
        }
        let (count, shape) = match header.shape[..] {
            [c, h, w] => (1, [c, h, w]),
            [n, c, h, w] => (n, [c, h, w]),
            _ => {
                let why = format!(
                    "its shape is {:?}; [channels, rows, columns] or [count, channels, rows, columns] is needed",
                    header.shape
                );
                return Err(refuse(path, why, "reshape it with numpy.reshape, and transpose channels to the front"));
            }
        };
        let values = shape.iter().try_fold(1u64, |all, &n| all.checked_mul(n as u64)).filter(|n| (1..=MAX_VALUES).contains(n));
        let Some(values) = values.filter(|_| count > 0) else {
            let why = format!("its shape is {:?}; one input has 1 to {MAX_VALUES} values", header.shape);
            return Err(refuse(path, why, "name an array of inputs of the network"));
        };
        let start = start + size as u64;
        let expected =
            values.checked_mul(kind.bytes()).and_then(|b| b.checked_mul(count as u64)).and_then(|b| b.checked_add(start));
        if expected != Some(length) {
            let why = format!("it has {length} bytes, and {:?} of {} bytes each do not end there", header.shape, kind.bytes());
            return Err(refuse(path, why, "it was cut short or damaged: save it again"));
        }
        Ok(Self { path: path.to_path_buf(), kind, count, shape, start })
    }

    /// What becomes of its numbers.
    pub fn treatment(&self) -> &'static str {
        match self.kind {
            Kind::Byte => "uint8: pixels of 0 to 255, normalised like those of a picture",
            Kind::Float32 | Kind::Float64 => "numbers fed as they are, without mean and std",
        }
    }

    /// What to call input `index`.
    pub fn name(&self, index: usize) -> String {
        if self.count == 1 { self.path.display().to_string() } else { format!("{}[{index}]", self.path.display()) }
    }

    /// Reads input `index`.
    ///
    /// # Errors
    /// [`Class::BadInput`] where the file does not hold it, or a number in it is not finite.
    pub fn read(&self, index: usize) -> Outcome<Numbers> {
        let count = self.shape.iter().product::<usize>();
        let size = count as u64 * self.kind.bytes();
        let mut bytes = Zeroizing::new(vec![0u8; size as usize]);
        let read = |bytes: &mut [u8]| {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.start + index as u64 * size))?;
            file.read_exact(bytes)
        };
        read(&mut bytes).map_err(unreadable(&self.path))?;
        let values: Zeroizing<Vec<f64>> = Zeroizing::new(match self.kind {
            Kind::Float32 => bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect(),
            Kind::Float64 => bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Kind::Byte => bytes.iter().map(|b| f64::from(*b) / 255.0).collect(),
        });
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            let why = format!("value {at} of {} is {}", self.name(index), values[at]);
            return Err(refuse(&self.path, why, "save finite numbers"));
        }
        Ok(Numbers { shape: self.shape, values, pixels: self.kind == Kind::Byte })
    }
}

/// The dictionary of a header: `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4), }`.
#[derive(Debug, Default, PartialEq)]
struct Header {
    descr: String,
    fortran_order: bool,
    shape: Vec<usize>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = |what: &str| format!("its header has no {what} that is read");
        let body = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(|| bad("dictionary"))?;
        // What comes after a key, which is in quotes of either kind.
        let after = |key: &str| {
            let at = ['\'', '"'].iter().find_map(|q| {
                let quoted = format!("{q}{key}{q}");
                body.find(&quoted).map(|at| at + quoted.len())
            })?;
            body[at..].trim_start().strip_prefix(':').map(str::trim_start)
        };
        let descr = after("descr").and_then(|t| {
            let quote = t.chars().next().filter(|q| ['\'', '"'].contains(q))?;
            t[1..].split_once(quote).map(|(descr, _)| descr.to_owned())
        });
        let order = after("fortran_order").and_then(|t| match t {
            t if t.starts_with("False") => Some(false),
            t if t.starts_with("True") => Some(true),
            _ => None,
        });
        let shape = after("shape").and_then(|t| {
            let (inside, _) = t.strip_prefix('(')?.split_once(')')?;
            inside.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>()
        });
        Ok(Self {
            descr: descr.ok_or_else(|| bad("type of numbers ('descr')"))?,
            fortran_order: order.ok_or_else(|| bad("'fortran_order'"))?,
            shape: shape.ok_or_else(|| bad("'shape'"))?,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file as numpy writes it.
    pub(crate) fn file(descr: &str, order: &str, shape: &str, values: &[u8]) -> Vec<u8> {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
        while (10 + header.len() + 1) % 64 != 0 {
            header.push(' ');
        }
        header.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend([1, 0]);
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.bytes());
        bytes.extend(values);
        bytes
    }

    fn open(bytes: &[u8]) -> Outcome<(tempfile::TempDir, Array)> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        std::fs::write(&path, bytes).unwrap();
        Array::open(&path).map(|array| (dir, array))
    }

    #[test]
    fn arrays_are_read_input_by_input() {
        let values: Vec<f32> = (0..24).map(|i| i as f32 / 2.0).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let (_dir, array) = open(&file("<f4", "False", "(2, 3, 2, 2)", &bytes)).unwrap();
        assert_eq!(array.count, 2);
        let second = array.read(1).unwrap();
        assert_eq!((second.shape, second.pixels), ([3, 2, 2], false));
        assert_eq!(*second.values, (12..24).map(|i| f64::from(i) / 2.0).collect::<Vec<_>>());
        let bytes: Vec<u8> = [0.5f64, -3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let (_dir, array) = open(&file("<f8", "False", "(2, 1, 1)", &bytes)).unwrap();
        assert_eq!((array.count, array.read(0).unwrap().values.to_vec()), (1, vec![0.5, -3.0]));
        let (_dir, array) = open(&file("|u1", "False", "(1, 1, 2)", &[255, 51])).unwrap();
        let pixels = array.read(0).unwrap();
        assert_eq!((pixels.values.to_vec(), pixels.pixels), (vec![1.0, 0.2], true));
    }

    #[test]
    fn what_is_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        let values: Vec<f64> = (0..12).map(|i| f64::from(i) / 3.0).collect();
        write(&path, [2, 3, 1, 2], &values).unwrap();
        let array = Array::open(&path).unwrap();
        assert_eq!((array.count, array.shape), (2, [3, 1, 2]));
        assert_eq!(*array.read(1).unwrap().values, values[6..]);
        assert_eq!(
            std::fs::read(&path).unwrap(),
            file("<f8", "False", "(2, 3, 1, 2)", &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>())
        );
        assert!(write(&path, [1, 1, 1, 1], &[0.0]).is_err(), "nothing is replaced");
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_reason() {
        let floats = |n: usize| vec![0u8; 4 * n];
        let nan: Vec<u8> = f32::NAN.to_le_bytes().to_vec();
        for (bytes, why) in [
            (b"\x89PNG\r\n\x1a\n0000".to_vec(), "does not begin like"),
            (Vec::new(), "does not begin like"),
            (file("<f4", "True", "(1, 2, 2)", &floats(4)), "Fortran"),
            (file(">f4", "False", "(1, 2, 2)", &floats(4)), ">f4"),
            (file("<i8", "False", "(1, 2, 2)", &floats(8)), "<i8"),
            (file("|O", "False", "(1, 2, 2)", &floats(4)), "|O"),
            (file("<f4", "False", "(4,)", &floats(4)), "[4]"),
            (file("<f4", "False", "(1, 2, 2)", &floats(3)), "do not end there"),
            (file("<f4", "False", "(1, 2, 2)", &floats(5)), "do not end there"),
            (file("<f4", "False", "(0, 1, 2, 2)", &[]), "values"),
            (file("<f4", "False", "(1, 0, 2)", &[]), "values"),
            (file("<f4", "False", "(4294967296, 4294967296, 4294967296)", &[]), "values"),
            (file("<f4", "False", "(18446744073709551615, 1, 2, 2)", &floats(4)), "do not end there"),
            (file("<f4", "False", "(99999999999999999999, 2, 2)", &floats(4)), "'shape'"),
            (file("<f4", "maybe", "(1, 2, 2)", &floats(4)), "fortran_order"),
        ] {
            let failure = open(&bytes).unwrap_err();
            assert_eq!(failure.class, Class::BadInput);
            assert!(failure.why[0].contains(why), "{:?} for {why}", failure.why);
        }
        let (_dir, array) = open(&file("<f4", "False", "(1, 1, 1)", &nan)).unwrap();
        assert!(array.read(0).unwrap_err().why[0].contains("NaN"));
        let whole = file("<f4", "False", "(1, 2, 2)", &floats(4));
        for cut in 0..whole.len() {
            assert!(open(&whole[..cut]).is_err(), "cut at {cut}");
        }
        let mut long = whole;
        (long[6], long[8], long[9], long[10], long[11]) = (2, 255, 255, 255, 255);
        assert!(open(&long).unwrap_err().why[0].contains("header"));
    }
}
