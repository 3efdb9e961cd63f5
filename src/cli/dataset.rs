//! Labelled pictures for measuring accuracy: folders of files, or JPEGs packed into one file.

use super::failure::{Class, Failure, Outcome};
use super::picture::Picture;
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
    Packed { blob: Arc<Vec<u8>>, range: Range<usize>, name: String },
}

impl Item {
    /// The picture.
    pub fn open(&self) -> Outcome<Picture> {
        match &self.source {
            Source::File(path) => Picture::open(path),
            Source::Packed { blob, range, name } => {
                Picture::decode(&blob[range.clone()], &format!("cannot read the picture {name}"))
            }
        }
    }
}

/// Reads a description of pictures: `DIR`, `packed:DIR` or `packed:DIR/SPLIT`, each with an optional `@CLASS` that labels
/// all of them.
///
/// `DIR` holds pictures, or one folder a class named like the class or its index. `packed:DIR` holds `SPLIT.jpgs`
/// (JPEGs one after the other), `SPLIT.offsets.u32` (N + 1 little-endian positions) and perhaps `SPLIT.labels.u8`.
pub fn open(spec: &str, classes: &[String]) -> Outcome<Vec<Item>> {
    let (place, class) = match spec.rsplit_once('@') {
        Some((place, class)) if !place.is_empty() && !class.contains('/') => (place, Some(class)),
        _ => (spec, None),
    };
    let forced = class
        .map(|name| {
            class_index(name, classes).ok_or_else(|| {
                let why = format!("the network's classes are {}", classes.join(", "));
                Failure::new(Class::Usage, format!("there is no class `{name}`"), why, "name one of them, or its index from 0")
            })
        })
        .transpose()?;
    let mut items = match place.strip_prefix("packed:") {
        Some(folder) => packed(Path::new(folder), classes)?,
        None => folder(Path::new(place), classes)?,
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
fn class_index(name: &str, classes: &[String]) -> Option<usize> {
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let wanted = plain(name);
    let named = classes.iter().position(|c| plain(c) == wanted);
    named.or_else(|| name.parse().ok().filter(|&i: &usize| i < classes.len()))
}

fn folder(dir: &Path, classes: &[String]) -> Outcome<Vec<Item>> {
    let mut items = Vec::new();
    for path in sorted_entries(dir)? {
        if path.is_dir() {
            let label = path.file_name().and_then(|n| class_index(&n.to_string_lossy(), classes));
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

fn packed(dir: &Path, classes: &[String]) -> Outcome<Vec<Item>> {
    let (dir, split) = match SPLITS.iter().find(|s| dir.join(format!("{s}.jpgs")).is_file()) {
        Some(split) => (dir.to_path_buf(), split.to_string()),
        None => match (dir.parent(), dir.file_name()) {
            (Some(parent), Some(name)) => (parent.to_path_buf(), name.to_string_lossy().into_owned()),
            _ => (dir.to_path_buf(), SPLITS[0].to_string()),
        },
    };
    let file = |ending: &str| dir.join(format!("{split}.{ending}"));
    let read = |path: PathBuf| -> Outcome<Vec<u8>> {
        let about = std::fs::metadata(&path).map_err(|e| unreadable(&path, &e))?;
        if about.len() > MAX_PACKED_BYTES {
            let why = format!("it has {} bytes, more than the {MAX_PACKED_BYTES} this program reads", about.len());
            return Err(Failure::new(Class::BadInput, format!("cannot read {}", path.display()), why, "split it"));
        }
        std::fs::read(&path).map_err(|e| unreadable(&path, &e))
    };
    let blob = Arc::new(read(file("jpgs"))?);
    let offsets = read(file("offsets.u32"))?;
    let damaged = |why: String| {
        let what = format!("{} does not fit its pictures", file("offsets.u32").display());
        Failure::new(Class::BadInput, what, why, "make the packed files again")
    };
    let offsets: Vec<usize> = offsets.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b) as usize).collect();
    if let Some(i) = (1..offsets.len()).find(|&i| offsets[i] < offsets[i - 1] || offsets[i] > blob.len()) {
        return Err(damaged(format!("position {i} is {}, after {} and of {} bytes", offsets[i], offsets[i - 1], blob.len())));
    }
    let count = offsets.len().saturating_sub(1);
    let labels = if file("labels.u8").exists() { Some(read(file("labels.u8"))?) } else { None };
    if let Some(labels) = &labels {
        if labels.len() != count {
            return Err(damaged(format!("{count} pictures and {} labels", labels.len())));
        }
        if let Some(&bad) = labels.iter().find(|&&l| usize::from(l) >= classes.len()) {
            return Err(damaged(format!("label {bad}, and the network has {} classes", classes.len())));
        }
    }
    let name = file("jpgs");
    let item = |i: usize| Item {
        source: Source::Packed {
            blob: blob.clone(),
            range: offsets[i]..offsets[i + 1],
            name: format!("{} #{i}", name.display()),
        },
        label: labels.as_ref().map(|l| usize::from(l[i])),
    };
    Ok((0..count).map(item).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn classes() -> Vec<String> {
        ["gas pump", "cat", "French horn"].map(String::from).to_vec()
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
