//! Labelled pictures for measuring accuracy and for calibration: folders of files, or pictures packed into one file.

use super::failure::{Class, Failure, Outcome};
use super::picture::Picture;
use cipherlens::nn::Model;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Largest packed file read, bytes.
const MAX_PACKED_BYTES: u64 = 4 << 30;
/// Splits looked for in a packed folder, in this order.
const SPLITS: [&str; 3] = ["val", "test", "train"];
/// File names taken for pictures in a folder.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "gif", "bmp", "webp"];

/// One picture, not yet read.
#[derive(Debug, Clone)]
pub struct Item {
    source: Source,
    /// Class index, where known.
    pub label: Option<usize>,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    /// `head` comes before what the range holds: what all JPEGs of a file have in common.
    Packed {
        blob: Arc<Vec<u8>>,
        head: Option<Arc<Vec<u8>>>,
        range: Range<usize>,
        name: String,
    },
    /// Red, green and blue of each pixel, row by row.
    Pixels {
        blob: Arc<Vec<u8>>,
        range: Range<usize>,
        size: [usize; 2],
    },
}

/// What a network needs to know of its pictures.
#[derive(Debug, Clone)]
pub struct Expected {
    /// Names of the classes; may be empty.
    pub classes: Vec<String>,
    /// How many classes there are.
    pub outputs: usize,
    /// Rows and columns, for pictures that do not say.
    pub size: [usize; 2],
}

impl Expected {
    /// By a network.
    pub fn by(network: &Model) -> Self {
        let input = network.input().shape;
        let outputs = network.shape(network.output()).len();
        Self { classes: network.classes().to_vec(), outputs, size: [input.height, input.width] }
    }
}

impl Item {
    /// The picture.
    pub fn open(&self) -> Outcome<Picture> {
        match &self.source {
            Source::File(path) => Picture::open(path),
            Source::Packed { blob, head, range, name } => {
                let what = format!("cannot read the picture {name}");
                match head {
                    Some(head) => Picture::decode(&[head, &blob[range.clone()]].concat(), &what),
                    None => Picture::decode(&blob[range.clone()], &what),
                }
            }
            Source::Pixels { blob, range, size } => Picture::from_pixels(&blob[range.clone()], *size),
        }
    }
}

/// Reads a description of pictures: `DIR`, `packed:DIR` or `packed:DIR/SPLIT`, each with an optional `@CLASS` that labels
/// all of them.
///
/// `DIR` holds pictures, or one folder a class named like the class or its index. `packed:DIR` holds pictures one after the
/// other, and perhaps `SPLIT.labels.u8`; the pictures are one of
///
/// * `SPLIT.jpgs`: JPEGs, with `SPLIT.offsets.u32` (N + 1 little-endian positions);
/// * `SPLIT.jpgtails`: the same without the first bytes, which all share and `jpeg_header.bin` holds;
/// * `SPLIT_lossless.nhwc.u8`: pixels of the network's size, red, green and blue, row by row.
pub fn open(spec: &str, expected: &Expected) -> Outcome<Vec<Item>> {
    let classes = &expected.classes;
    let (place, class) = match spec.rsplit_once('@') {
        Some((place, class)) if !place.is_empty() && !class.contains('/') => (place, Some(class)),
        _ => (spec, None),
    };
    let forced = class
        .map(|name| {
            class_index(name, expected).ok_or_else(|| {
                let why = match classes.is_empty() {
                    true => format!("the network's classes have no names, and indices from 0 to {}", expected.outputs - 1),
                    false => format!("the network's classes are {}", classes.join(", ")),
                };
                Failure::new(Class::Usage, format!("there is no class `{name}`"), why, "name one of them, or its index from 0")
            })
        })
        .transpose()?;
    let mut items = match place.strip_prefix("packed:") {
        Some(folder) => packed(Path::new(folder), expected)?,
        None => folder(Path::new(place), expected)?,
    };
    if forced.is_some() {
        items.iter_mut().for_each(|item| item.label = forced);
    }
    if items.is_empty() {
        let why = format!("there is no file ending in {}", EXTENSIONS.join(", "));
        return Err(Failure::new(Class::BadInput, format!("{spec} holds no pictures"), why, "name a folder of pictures"));
    }
    Ok(items)
}

/// The class with a name (letters and digits compared, case ignored) or an index.
fn class_index(name: &str, Expected { classes, outputs, .. }: &Expected) -> Option<usize> {
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let wanted = plain(name);
    let named = classes.iter().position(|c| plain(c) == wanted);
    named.or_else(|| name.parse().ok().filter(|i: &usize| i < outputs))
}

fn folder(dir: &Path, expected: &Expected) -> Outcome<Vec<Item>> {
    let mut items = Vec::new();
    for path in sorted_entries(dir)? {
        if path.is_dir() {
            let label = path.file_name().and_then(|n| class_index(&n.to_string_lossy(), expected));
            let files = sorted_entries(&path)?.into_iter().filter(|p| is_picture(p));
            items.extend(files.map(|p| Item { source: Source::File(p), label }));
        } else if is_picture(&path) {
            items.push(Item { source: Source::File(path), label: None });
        }
    }
    Ok(items)
}

fn is_picture(path: &Path) -> bool {
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    path.is_file() && extension.is_some_and(|e| EXTENSIONS.contains(&e.as_str()))
}

fn sorted_entries(dir: &Path) -> Outcome<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        let mut paths = std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    };
    read().map_err(|e| unreadable(dir, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let what = format!("cannot read {}", path.display());
    Failure::from_error(Class::BadInput, what, error, "name a folder of pictures, or packed:DIR for packed JPEGs")
}

/// The forms of a packed split, by the end of its file's name, in the order in which they are looked for.
const FORMS: [&str; 3] = ["_lossless.nhwc.u8", ".jpgs", ".jpgtails"];

fn packed(dir: &Path, expected: &Expected) -> Outcome<Vec<Item>> {
    let form_of = |dir: &Path, split: &str| FORMS.into_iter().find(|form| dir.join(format!("{split}{form}")).is_file());
    let found = SPLITS.iter().find_map(|split| Some((split.to_string(), form_of(dir, split)?)));
    let (dir, split, form) = match (found, dir.parent(), dir.file_name()) {
        (Some((split, form)), ..) => (dir.to_path_buf(), split, form),
        (None, Some(parent), Some(name)) => {
            let split = name.to_string_lossy().into_owned();
            let form = form_of(parent, &split).unwrap_or(".jpgs");
            (parent.to_path_buf(), split, form)
        }
        _ => (dir.to_path_buf(), SPLITS[0].to_string(), ".jpgs"),
    };
    let name = dir.join(format!("{split}{form}"));
    let blob = Arc::new(read(&name)?);
    let damaged = |why: String| {
        Failure::new(Class::BadInput, format!("{} is not whole", name.display()), why, "make the packed files again")
    };
    let pixels = form == FORMS[0];
    let offsets: Vec<usize> = if pixels {
        let one = 3 * expected.size[0] * expected.size[1];
        if blob.len() % one != 0 {
            let [rows, columns] = expected.size;
            return Err(damaged(format!("{} bytes are no pictures of {columns}x{rows}, the network's size", blob.len())));
        }
        (0..=blob.len() / one).map(|i| i * one).collect()
    } else {
        let offsets = read(&dir.join(format!("{split}.offsets.u32")))?;
        offsets.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b) as usize).collect()
    };
    if let Some(i) = (1..offsets.len()).find(|&i| offsets[i] < offsets[i - 1] || offsets[i] > blob.len()) {
        return Err(damaged(format!("position {i} is {}, after {} and of {} bytes", offsets[i], offsets[i - 1], blob.len())));
    }
    let count = offsets.len().saturating_sub(1);
    let labels = dir.join(format!("{split}{}.labels.u8", if pixels { "_lossless" } else { "" }));
    let labels = if labels.exists() { Some(read(&labels)?) } else { None };
    if let Some(labels) = &labels {
        if labels.len() != count {
            return Err(damaged(format!("{count} pictures and {} labels", labels.len())));
        }
        if let Some(&bad) = labels.iter().find(|&&l| usize::from(l) >= expected.outputs) {
            return Err(damaged(format!("label {bad}, and the network has {} classes", expected.outputs)));
        }
    }
    let head = if form == FORMS[2] { Some(Arc::new(read(&dir.join("jpeg_header.bin"))?)) } else { None };
    let item = |i: usize| {
        let range = offsets[i]..offsets[i + 1];
        let source = match pixels {
            true => Source::Pixels { blob: blob.clone(), range, size: expected.size },
            false => Source::Packed { blob: blob.clone(), head: head.clone(), range, name: format!("{} #{i}", name.display()) },
        };
        Item { source, label: labels.as_ref().map(|l| usize::from(l[i])) }
    };
    Ok((0..count).map(item).collect())
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let about = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if about.len() > MAX_PACKED_BYTES {
        let why = format!("it has {} bytes, more than the {MAX_PACKED_BYTES} this program reads", about.len());
        return Err(Failure::new(Class::BadInput, format!("cannot read {}", path.display()), why, "split it"));
    }
    std::fs::read(path).map_err(|e| unreadable(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn classes() -> Expected {
        Expected { classes: ["gas pump", "cat", "French horn"].map(String::from).to_vec(), outputs: 3, size: [2, 4] }
    }

    fn jpeg(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(8, 8, image::Rgb([value; 3])).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    fn write_packed(dir: &Path, pictures: &[Vec<u8>], labels: Option<&[u8]>) {
        let mut offsets = vec![0u32];
        for p in pictures {
            offsets.push(offsets[offsets.len() - 1] + p.len() as u32);
        }
        fs::write(dir.join("val.jpgs"), pictures.concat()).unwrap();
        fs::write(dir.join("val.offsets.u32"), offsets.iter().flat_map(|o| o.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        if let Some(labels) = labels {
            fs::write(dir.join("val.labels.u8"), labels).unwrap();
        }
    }

    #[test]
    fn folders_are_classes() {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in [("gas_pump", 10), ("2", 20), ("unknown", 30)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("a.JPG"), jpeg(value)).unwrap();
        }
        fs::write(dir.path().join("notes.txt"), "not a picture").unwrap();
        let items = open(dir.path().to_str().unwrap(), &classes()).unwrap();
        assert_eq!(items.iter().map(|i| i.label).collect::<Vec<_>>(), [Some(2), Some(0), None]);
        items[0].open().unwrap();
    }

    #[test]
    fn packed_pictures_and_forced_classes() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |tail: &str| format!("packed:{}{tail}", dir.path().display());
        write_packed(dir.path(), &[jpeg(1), jpeg(2)], None);
        assert!(open(&spec(""), &classes()).unwrap().iter().all(|i| i.label.is_none()));
        assert!(open(&spec("/val@cat"), &classes()).unwrap().iter().all(|i| i.label == Some(1)));
        assert_eq!(open(&spec("@dog"), &classes()).unwrap_err().class, Class::Usage);
        write_packed(dir.path(), &[jpeg(1), jpeg(2)], Some(&[2, 0]));
        let items = open(&spec(""), &classes()).unwrap();
        assert_eq!((items[0].label, items[1].label), (Some(2), Some(0)));
        items[1].open().unwrap();
    }

    #[test]
    fn pixels_and_jpegs_without_their_heads() {
        let dir = tempfile::tempdir().unwrap();
        let spec = format!("packed:{}", dir.path().display());
        let whole = jpeg(200);
        fs::write(dir.path().join("jpeg_header.bin"), &whole[..100]).unwrap();
        fs::write(dir.path().join("train.jpgtails"), &whole[100..]).unwrap();
        let offsets = [0, whole.len() as u32 - 100].map(u32::to_le_bytes).concat();
        fs::write(dir.path().join("train.offsets.u32"), offsets).unwrap();
        let items = open(&spec, &classes()).unwrap();
        assert_eq!((items.len(), items[0].open().unwrap().size()), (1, (8, 8)));

        // Two pictures of two rows and four columns; found before the JPEGs.
        fs::write(dir.path().join("test_lossless.nhwc.u8"), (0..48).collect::<Vec<u8>>()).unwrap();
        fs::write(dir.path().join("test_lossless.labels.u8"), [1, 2]).unwrap();
        let items = open(&spec, &classes()).unwrap();
        assert_eq!((items.len(), items[1].label, items[1].open().unwrap().size()), (2, Some(2), (4, 2)));
        let fitted = items[1].open().unwrap().fit(3, 2, 4, crate::cli::picture::Fit::Crop).unwrap();
        assert_eq!(fitted.planes[..2], [24.0 / 255.0, 27.0 / 255.0]);
        assert_eq!(fitted.planes[8], 25.0 / 255.0);
        fs::write(dir.path().join("test_lossless.nhwc.u8"), [0; 47]).unwrap();
        assert!(open(&spec, &classes()).unwrap_err().why[0].contains("no pictures of 4x2"));
    }

    #[test]
    fn damaged_packs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spec = format!("packed:{}", dir.path().display());
        write_packed(dir.path(), &[jpeg(1), jpeg(2)], Some(&[0]));
        assert!(open(&spec, &classes()).unwrap_err().why[0].contains("2 pictures and 1 labels"));
        write_packed(dir.path(), &[jpeg(1)], Some(&[9]));
        assert!(open(&spec, &classes()).unwrap_err().why[0].contains("label 9"));
        fs::write(dir.path().join("val.offsets.u32"), [0, 0, 0, 0, 255, 255, 0, 0]).unwrap();
        assert!(open(&spec, &classes()).unwrap_err().why[0].contains("65535"));
        fs::remove_file(dir.path().join("val.jpgs")).unwrap();
        assert_eq!(open(&spec, &classes()).unwrap_err().class, Class::BadInput);
    }
}
