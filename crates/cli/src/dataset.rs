//! Labelled pictures for measuring accuracy and for calibration: folders of files, or pictures packed into one file.

mod packed;

use super::failure::{Class, Failure, Outcome};
use super::npy::{self, Array};
use super::picture::Picture;
use super::sample::Sample;
use cipherlens::nn::Model;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most inputs of one array.
const MAX_INPUTS: usize = 1 << 20;
/// File names taken for pictures in a folder.
const EXTENSIONS: [&str; 6] = ["png", "jpg", "jpeg", "gif", "bmp", "webp"];

/// One picture or array, not yet read.
#[derive(Debug, Clone)]
pub struct Item {
    source: Source,
    /// Class index, where known.
    pub label: Option<usize>,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    /// One input of an array.
    Array {
        array: Arc<Array>,
        index: usize,
    },
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
        let outputs = network.answers();
        Self { classes: network.classes().to_vec(), outputs, size: [input.height, input.width] }
    }
}

impl Item {
    /// What the network is given.
    ///
    /// # Errors
    /// [`Class::BadInput`] for a picture that cannot be read or decoded, or numbers that are not finite.
    pub fn open(&self) -> Outcome<Sample> {
        match &self.source {
            Source::Array { array, index } => Ok(Sample::Numbers(array.read(*index)?)),
            _ => Ok(Sample::Picture(self.picture()?)),
        }
    }

    /// What is done with the numbers of the array that this is one of.
    fn array_note(&self) -> Option<String> {
        let Source::Array { array, .. } = &self.source else { return None };
        Some(format!("{} inputs, {}", array.count, array.treatment()))
    }

    fn picture(&self) -> Outcome<Picture> {
        match &self.source {
            Source::File(path) => Picture::open(path),
            Source::Array { array, index } => {
                let why = "it holds numbers";
                Err(Failure::new(Class::BadInput, format!("{} is no picture", array.name(*index)), why, "name a picture"))
            }
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

/// What pictures are wanted for: it decides which of several splits a bare `packed:DIR` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To measure on: what a network was not trained on, if there is any.
    Measure,
    /// To fit to: what it was trained on, so that nothing is fitted to what will be measured on.
    Calibrate,
}

/// Pictures found, not yet read.
#[derive(Debug)]
pub struct Found {
    /// The pictures.
    pub items: Vec<Item>,
    /// Which files were taken, where that was a choice.
    pub note: Option<String>,
    /// Why labels that are there were left out: they are not of this network.
    pub unfit: Option<Failure>,
    /// Folders of pictures whose names are no class, so that their pictures have no labels.
    pub nameless: Vec<String>,
}

/// Folders named where their names are no class.
const FOLDERS_NAMED: usize = 5;

impl Found {
    /// What is to be said of folders whose names are no class: which, and how classes are named.
    pub fn unlabelled(&self, expected: &Expected) -> Option<String> {
        let (first, more) = self.nameless.split_at(self.nameless.len().min(FOLDERS_NAMED));
        let others = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let last = expected.outputs.saturating_sub(1);
        let named = match expected.classes.split_at(expected.classes.len().min(FOLDERS_NAMED)) {
            ([], _) => format!("numbers from 0 to {last} (`cipherlens compile --classes` gives them names)"),
            (some, rest) => {
                format!("{}{}, or numbers from 0 to {last}", some.join(", "), if rest.is_empty() { "" } else { ", ..." })
            }
        };
        let folders = if self.nameless.len() == 1 { "the folder" } else { "the folders" };
        let quoted = first.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        (!first.is_empty()).then(|| {
            format!(
                "{folders} {quoted}{others}: no class has that name, and the pictures count as unlabelled; classes are {named}"
            )
        })
    }
}

/// [`find`] to measure accuracy on, without the note; folders whose names are no class are told.
///
/// # Errors
/// As [`find`], and [`Class::BadInput`] for labels that are not of this network.
pub fn open(spec: &str, expected: &Expected) -> Outcome<Vec<Item>> {
    let found = find(spec, expected, Purpose::Measure)?;
    if let Some(said) = found.unlabelled(expected) {
        super::output::tell!("note: {spec}: {said}");
    }
    found.unfit.map_or(Ok(found.items), Err)
}

/// Reads a description of pictures: `DIR`, `FILE.npy`, `packed:DIR`, `packed:DIR/SPLIT` or `packed:DIR/FILE`, each with an optional
/// `@CLASS` that labels all of them.
///
/// `DIR` holds pictures and `.npy` arrays, or one folder a class named like the class or its index. `packed:DIR` holds pictures one after the
/// other, and perhaps `SPLIT.labels.u8`; the pictures are one of
///
/// * `SPLIT_lossless.nhwc.u8`: pixels of the network's size, red, green and blue, row by row;
/// * `SPLIT_lossless_batch0.png`, `_batch1.png`, ...: the same, each row of the file one picture;
/// * `SPLIT.jpgs`: JPEGs, with `SPLIT.offsets.u32` (N + 1 little-endian positions);
/// * `SPLIT.jpgtails`: the same without the first bytes, which all share and `jpeg_header.bin` holds.
///
/// The first of these that is there is taken; `SPLIT_lossless` takes none but the first two, and the whole name of a file takes
/// that file. Lossless pictures may be the first ones of their split only; they may have labels of their own
/// (`SPLIT_lossless.labels.u8`).
///
/// # Errors
/// [`Class::Usage`] for a class that the network does not have, [`Class::BadInput`] where there is nothing to read, no picture, or packed
/// files that do not belong together.
pub fn find(spec: &str, expected: &Expected, purpose: Purpose) -> Outcome<Found> {
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
    let mut found = match place.strip_prefix("packed:") {
        Some(folder) => packed::find(Path::new(folder), expected, purpose)?,
        None if npy::is_named_so(Path::new(place)) => {
            let items = array(Path::new(place), None)?;
            let note = items.first().and_then(Item::array_note);
            Found { items, note, unfit: None, nameless: Vec::new() }
        }
        None => {
            let (items, nameless) = folder(Path::new(place), expected)?;
            Found { items, note: None, unfit: None, nameless }
        }
    };
    if forced.is_some() {
        found.items.iter_mut().for_each(|item| item.label = forced);
        found.unfit = None;
        found.nameless.clear();
    }
    if found.items.is_empty() {
        let why = format!("there is no file ending in {} or npy", EXTENSIONS.join(", "));
        return Err(Failure::new(Class::BadInput, format!("{spec} holds no pictures"), why, "name a folder of pictures"));
    }
    Ok(found)
}

/// The class with a name (letters and digits compared, case ignored) or an index.
fn class_index(name: &str, Expected { classes, outputs, .. }: &Expected) -> Option<usize> {
    let plain = |s: &str| s.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect::<String>();
    let wanted = plain(name);
    let named = classes.iter().position(|c| plain(c) == wanted);
    named.or_else(|| name.parse().ok().filter(|i: &usize| i < outputs))
}

/// What a folder holds, and which folders in it have pictures and no name of a class.
fn folder(dir: &Path, expected: &Expected) -> Outcome<(Vec<Item>, Vec<String>)> {
    let (mut items, mut nameless) = (Vec::new(), Vec::new());
    for path in sorted_entries(dir)? {
        if path.is_dir() {
            let name = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
            let (label, before) = (class_index(&name, expected), items.len());
            for path in sorted_entries(&path)? {
                items.extend(in_file(path, label)?);
            }
            if label.is_none() && items.len() > before {
                nameless.push(name);
            }
        } else {
            items.extend(in_file(path, None)?);
        }
    }
    Ok((items, nameless))
}

/// What a file of a folder holds: a picture, the inputs of an array, or nothing.
fn in_file(path: PathBuf, label: Option<usize>) -> Outcome<Vec<Item>> {
    if path.is_file() && npy::is_named_so(&path) {
        return array(&path, label);
    }
    Ok(if is_picture(&path) { vec![Item { source: Source::File(path), label }] } else { Vec::new() })
}

fn array(path: &Path, label: Option<usize>) -> Outcome<Vec<Item>> {
    let array = Arc::new(Array::open(path)?);
    if array.count > MAX_INPUTS {
        let why = format!("it holds {} inputs, the limit is {MAX_INPUTS}", array.count);
        return Err(Failure::new(Class::BadInput, format!("cannot use {}", path.display()), why, "save fewer of them"));
    }
    Ok((0..array.count).map(|index| Item { source: Source::Array { array: array.clone(), index }, label }).collect())
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs;

    pub(crate) fn classes() -> Expected {
        Expected { classes: ["gas pump", "cat", "French horn"].map(String::from).to_vec(), outputs: 3, size: [2, 4] }
    }

    pub(crate) fn jpeg(value: u8) -> Vec<u8> {
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_pixel(8, 8, image::Rgb([value; 3])).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
        bytes.into_inner()
    }

    /// A file with a few changes.
    fn mutant(file: &[u8], rng: &mut chacha20::ChaCha8Rng) -> Vec<u8> {
        use rand::RngExt;
        let mut bytes = file.to_vec();
        for _ in 0..rng.random_range(1..=4) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..5) {
                0 => bytes[at] ^= 1 << rng.random_range(0..8),
                1 => bytes[at] = rng.random(),
                2 => bytes[at] = [0, 1, 127, 128, 255][rng.random_range(0..5)],
                3 => bytes.insert(at, rng.random()),
                _ if bytes.len() > 1 => drop(bytes.remove(at)),
                _ => {}
            }
        }
        bytes
    }

    /// What the fuzz targets for pictures do, with a seeded generator: whatever the bytes are, there is an answer.
    #[test]
    fn damaged_pictures_arrays_and_packs_are_answered() {
        use image::ImageFormat::{Bmp, Gif, Jpeg, Png, WebP};
        use rand::SeedableRng;
        println!("seed 73");
        let mut rng = chacha20::ChaCha8Rng::seed_from_u64(73);
        let picture = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([(28 * x) as u8, (36 * y) as u8, (x * y) as u8]));
        for format in [Png, Jpeg, Bmp, Gif, WebP] {
            let mut file = std::io::Cursor::new(Vec::new());
            image::DynamicImage::from(picture.clone()).write_to(&mut file, format).unwrap();
            for _ in 0..400 {
                let Ok(picture) = Picture::decode(&mutant(file.get_ref(), &mut rng), "cannot read the picture") else { continue };
                if picture.size().0.max(picture.size().1) <= 512 {
                    picture.fit(3, 7, 5, cipherlens::nn::model::Fit::Crop).unwrap();
                }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let array = dir.path().join("a.npy");
        let file = npy::tests::file("<f4", "False", "(2, 1, 2, 2)", &[0; 32]);
        for _ in 0..400 {
            fs::write(&array, mutant(&file, &mut rng)).unwrap();
            if let Ok(array) = Array::open(&array) {
                let _ = array.read(array.count - 1);
            }
        }
        let spec = format!("packed:{}", dir.path().display());
        let n = jpeg(9).len() as u32;
        let whole: [(&str, Vec<u8>); 3] = [
            ("val.jpgs", [jpeg(9), jpeg(8)].concat()),
            ("val.offsets.u32", [0, n, 2 * n].map(u32::to_le_bytes).concat()),
            ("val.labels.u8", vec![1, 2]),
        ];
        for round in 0..400 {
            for (i, (name, file)) in whole.iter().enumerate() {
                let bytes = if i == round % 3 { mutant(file, &mut rng) } else { file.clone() };
                fs::write(dir.path().join(name), bytes).unwrap();
            }
            open(&spec, &classes()).into_iter().flatten().for_each(|item| drop(item.open()));
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
        let found = find(dir.path().to_str().unwrap(), &classes(), Purpose::Measure).unwrap();
        let items = &found.items;
        assert_eq!(items.iter().map(|i| i.label).collect::<Vec<_>>(), [Some(2), Some(0), None]);
        items[0].picture().unwrap();
        let said = found.unlabelled(&classes()).unwrap();
        assert!(
            said.contains("the folder `unknown`: ") && said.contains("gas pump, cat, French horn, or numbers from 0 to 2"),
            "{said}"
        );
        let said = found.unlabelled(&Expected { classes: Vec::new(), ..classes() }).unwrap();
        assert!(said.contains("numbers from 0 to 2 (`cipherlens compile --classes`"), "{said}");
        assert!(Found { nameless: Vec::new(), ..found }.unlabelled(&classes()).is_none());
    }
}
