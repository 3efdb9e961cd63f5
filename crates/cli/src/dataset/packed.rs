//! Pictures packed into few files: which files a description means, and where each picture lies in them.

use super::{Expected, Found, Item, Purpose, Source, unreadable};
use crate::failure::{Class, Failure, Outcome};
use crate::picture::Picture;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most bytes of packed pictures read, as they are held in memory.
const MAX_PACKED_BYTES: u64 = 4 << 30;
/// How the names of lossless pictures go on behind the split.
const LOSSLESS: &str = "_lossless";

/// How the pictures of a split are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Pixels one after the other.
    Pixels,
    /// PNGs with the pixels of one picture in each row.
    Rows,
    /// JPEGs one after the other.
    Jpegs,
    /// The same without what they all begin with.
    JpegTails,
}

impl Form {
    /// In the order in which they are looked for: what lost nothing comes first.
    const ALL: [Self; 4] = [Self::Pixels, Self::Rows, Self::Jpegs, Self::JpegTails];

    fn is_lossless(self) -> bool {
        matches!(self, Self::Pixels | Self::Rows)
    }

    /// How the name of its (first) file ends, behind the split.
    fn ending(self) -> &'static str {
        match self {
            Self::Pixels => "_lossless.nhwc.u8",
            Self::Rows => "_lossless_batch0.png",
            Self::Jpegs => ".jpgs",
            Self::JpegTails => ".jpgtails",
        }
    }
}

/// One split in one form.
struct Pack {
    dir: PathBuf,
    split: String,
    form: Form,
}

impl Pack {
    fn path(&self) -> PathBuf {
        self.dir.join(format!("{}{}", self.split, self.form.ending()))
    }

    fn is_there(&self) -> bool {
        self.path().is_file()
    }

    /// All forms of a split that there are, in the order in which they are taken.
    fn of_split(dir: &Path, split: &str) -> Vec<Self> {
        let pack = |form| Self { dir: dir.to_path_buf(), split: split.to_owned(), form };
        Form::ALL.into_iter().map(pack).filter(Self::is_there).collect()
    }

    /// What a place means, the one to take first: a folder with one of the usual splits, a split in a folder, a split's
    /// lossless form, or one file.
    fn at(place: &Path, purpose: Purpose) -> Vec<Self> {
        let splits = match purpose {
            Purpose::Measure => ["val", "test", "train"],
            Purpose::Calibrate => ["train", "val", "test"],
        };
        let usual = splits.iter().map(|split| Self::of_split(place, split)).find(|packs| !packs.is_empty());
        if let Some(packs) = usual {
            return packs;
        }
        let (Some(dir), Some(name)) = (place.parent(), place.file_name()) else { return Vec::new() };
        let name = name.to_string_lossy();
        let mut packs = Self::of_split(dir, &name);
        if let Some(split) = name.strip_suffix(LOSSLESS).filter(|_| packs.is_empty()) {
            packs = Self::of_split(dir, split);
            packs.retain(|p| p.form.is_lossless());
        }
        if packs.is_empty() {
            let split_of = |form: Form| Some((form, name.strip_suffix(form.ending())?.to_owned()));
            let file = Form::ALL.into_iter().find_map(split_of);
            packs.extend(file.map(|(form, split)| Self { dir: dir.to_path_buf(), split, form }).filter(Self::is_there));
        }
        packs
    }
}

/// Finds the pictures that `packed:PLACE` means.
pub(super) fn find(place: &Path, expected: &Expected, purpose: Purpose) -> Outcome<Found> {
    let packs = Pack::at(place, purpose);
    let Some((pack, others)) = packs.split_first() else {
        let what = format!("cannot read packed pictures at {}", place.display());
        let why = format!("there is none of {}", Form::ALL.map(|form| format!("SPLIT{}", form.ending())).join(", "));
        return Err(Failure::new(Class::BadInput, what, why, "name packed:DIR, packed:DIR/SPLIT or packed:DIR/FILE"));
    };
    let (items, unfit) = pack.items(expected)?;
    let name = |pack: &Pack| pack.path().file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let passed: Vec<String> = others.iter().map(name).collect();
    let passed = if passed.is_empty() { String::new() } else { format!(", and not {}", passed.join(", ")) };
    let note = format!("{} pictures of {}{passed}", items.len(), name(pack));
    Ok(Found { items, note: Some(note), unfit, nameless: Vec::new() })
}

impl Pack {
    /// The pictures, and why their labels are left out, if they are.
    fn items(&self, expected: &Expected) -> Outcome<(Vec<Item>, Option<Failure>)> {
        let (blob, offsets) = match self.form {
            Form::Pixels => self.pixels(read(&self.path())?, expected)?,
            Form::Rows => self.pixels(self.rows(expected)?, expected)?,
            Form::Jpegs | Form::JpegTails => self.jpegs()?,
        };
        let blob = Arc::new(blob);
        let count = offsets.len().saturating_sub(1);
        let (labels, unfit) = match self.labels(count)? {
            Some((path, labels)) => match labels.iter().find(|&&l| usize::from(l) >= expected.outputs) {
                Some(bad) => {
                    let why = format!("label {bad}, and the network has {} classes", expected.outputs);
                    (None, Some(self.damaged(&path, why)))
                }
                None => (Some(labels), None),
            },
            None => (None, None),
        };
        let head = match self.form {
            Form::JpegTails => Some(Arc::new(read(&self.dir.join("jpeg_header.bin"))?)),
            _ => None,
        };
        let name = self.path().display().to_string();
        let item = |i: usize| {
            let (range, blob) = (offsets[i]..offsets[i + 1], blob.clone());
            let source = match self.form.is_lossless() {
                true => Source::Pixels { blob, range, size: expected.size },
                false => Source::Packed { blob, head: head.clone(), range, name: format!("{name} #{i}") },
            };
            Item { source, label: labels.as_ref().map(|l| usize::from(l[i])) }
        };
        Ok(((0..count).map(item).collect(), unfit))
    }

    fn damaged(&self, path: &Path, why: String) -> Failure {
        Failure::new(Class::BadInput, format!("{} is not whole", path.display()), why, "make the packed files again")
    }

    fn pixels(&self, blob: Vec<u8>, expected: &Expected) -> Outcome<(Vec<u8>, Vec<usize>)> {
        let [rows, columns] = expected.size;
        let one = 3 * rows * columns;
        if one == 0 || !blob.len().is_multiple_of(one) {
            let why = format!("{} bytes are no pictures of {columns}x{rows}, the network's size", blob.len());
            return Err(self.damaged(&self.path(), why));
        }
        let offsets = (0..=blob.len() / one).map(|i| i * one).collect();
        Ok((blob, offsets))
    }

    /// The pixels of all batches, one after the other.
    fn rows(&self, expected: &Expected) -> Outcome<Vec<u8>> {
        let [rows, columns] = expected.size;
        let mut blob: Vec<u8> = Vec::new();
        for batch in 0usize.. {
            let path = self.dir.join(format!("{}{LOSSLESS}_batch{batch}.png", self.split));
            if !path.is_file() {
                break;
            }
            let picture = Picture::open(&path)?;
            let width = picture.size().0 as usize;
            if width != rows * columns {
                let why = format!("its rows have {width} pixels, and a picture of {columns}x{rows} has {}", rows * columns);
                return Err(self.damaged(&path, why));
            }
            let pixels = picture.into_pixels();
            if (blob.len() + pixels.len()) as u64 > MAX_PACKED_BYTES {
                return Err(too_large(&path, (blob.len() + pixels.len()) as u64));
            }
            blob.extend(pixels);
        }
        Ok(blob)
    }

    fn jpegs(&self) -> Outcome<(Vec<u8>, Vec<usize>)> {
        let blob = read(&self.path())?;
        let positions = read(&self.dir.join(format!("{}.offsets.u32", self.split)))?;
        let offsets: Vec<usize> = positions.as_chunks::<4>().0.iter().map(|&b| u32::from_le_bytes(b) as usize).collect();
        if let Some(i) = (1..offsets.len()).find(|&i| offsets[i] < offsets[i - 1] || offsets[i] > blob.len()) {
            let why = format!("position {i} is {}, after {} and of {} bytes", offsets[i], offsets[i - 1], blob.len());
            return Err(self.damaged(&self.path(), why));
        }
        Ok((blob, offsets))
    }

    /// A label for each of `count` pictures and where it was found, if there are labels.
    fn labels(&self, count: usize) -> Outcome<Option<(PathBuf, Vec<u8>)>> {
        let file = |infix: &str| self.dir.join(format!("{}{infix}.labels.u8", self.split));
        let own = file(LOSSLESS);
        let is_own = self.form.is_lossless() && own.is_file();
        let path = if is_own { own } else { file("") };
        if !path.is_file() {
            return Ok(None);
        }
        let mut labels = read(&path)?;
        // Lossless pictures may be the first ones of a split that is labelled as a whole.
        let whole = !self.form.is_lossless() || is_own;
        if labels.len() < count || (whole && labels.len() != count) {
            return Err(self.damaged(&self.path(), format!("{count} pictures and {} labels", labels.len())));
        }
        labels.truncate(count);
        Ok(Some((path, labels)))
    }
}

fn too_large(path: &Path, found: u64) -> Failure {
    let why = format!("it takes {found} bytes, more than the {MAX_PACKED_BYTES} this program reads");
    Failure::new(Class::BadInput, format!("cannot read {}", path.display()), why, "split it")
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    let about = std::fs::metadata(path).map_err(|e| unreadable(path, &e))?;
    if about.len() > MAX_PACKED_BYTES {
        return Err(too_large(path, about.len()));
    }
    std::fs::read(path).map_err(|e| unreadable(path, &e))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{classes, jpeg};
    use super::super::{find, open};
    use super::*;
    use std::fs;

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
        items[1].picture().unwrap();
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
        assert_eq!((items.len(), items[0].picture().unwrap().size()), (1, (8, 8)));

        // Two pictures of two rows and four columns; found before the JPEGs.
        fs::write(dir.path().join("test_lossless.nhwc.u8"), (0..48).collect::<Vec<u8>>()).unwrap();
        fs::write(dir.path().join("test_lossless.labels.u8"), [1, 2]).unwrap();
        let items = open(&spec, &classes()).unwrap();
        assert_eq!((items.len(), items[1].label, items[1].picture().unwrap().size()), (2, Some(2), (4, 2)));
        let fitted = items[1].picture().unwrap().fit(3, 2, 4, cipherlens::nn::model::Fit::Crop).unwrap();
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
        // To calibrate on, which needs no labels, they will do.
        let found = find(&spec, &classes(), Purpose::Calibrate).unwrap();
        assert!(found.items[0].label.is_none() && found.unfit.is_some_and(|f| f.why[0].contains("label 9")));
        fs::write(dir.path().join("val.offsets.u32"), [0, 0, 0, 0, 255, 255, 0, 0]).unwrap();
        assert!(open(&spec, &classes()).unwrap_err().why[0].contains("65535"));
        fs::remove_file(dir.path().join("val.jpgs")).unwrap();
        assert_eq!(open(&spec, &classes()).unwrap_err().class, Class::BadInput);
    }

    /// Batches of PNGs: row r of batch b is picture `rows * b + r`, of two rows and four columns, its pixels' values all
    /// different.
    fn write_rows(dir: &Path, split: &str, batches: &[u32]) {
        let mut first = 0;
        for (b, &rows) in batches.iter().enumerate() {
            let pixel = |x: u32, y: u32| image::Rgb([0, 1, 2].map(|c| (24 * (first + y) + 3 * x + c) as u8));
            let name = format!("{split}_lossless_batch{b}.png");
            image::RgbImage::from_fn(8, rows, pixel).save(dir.join(name)).unwrap();
            first += rows;
        }
    }

    #[test]
    fn rows_of_pictures_are_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |tail: &str| format!("packed:{}{tail}", dir.path().display());
        write_rows(dir.path(), "train", &[3, 2]);
        let items = open(&spec("/train_lossless"), &classes()).unwrap();
        assert_eq!(items.len(), 5);
        assert!(items.iter().all(|i| i.label.is_none()));
        for (k, item) in items.iter().enumerate() {
            let picture = item.picture().unwrap();
            assert_eq!(picture.size(), (4, 2));
            let expected: Vec<u8> = (0..24).map(|i| (24 * k + i) as u8).collect();
            assert_eq!(picture.into_pixels(), expected, "picture {k}");
        }

        // Labels of the whole split, of which these are the first; then labels of their own.
        fs::write(dir.path().join("train.labels.u8"), [2, 1, 0, 1, 2, 0, 0]).unwrap();
        let labels = |spec: &str| open(spec, &classes()).unwrap().iter().map(|i| i.label).collect::<Vec<_>>();
        assert_eq!(labels(&spec("/train_lossless")), [2, 1, 0, 1, 2].map(Some));
        fs::write(dir.path().join("train.labels.u8"), [2, 1, 0, 1]).unwrap();
        assert!(open(&spec(""), &classes()).unwrap_err().why[0].contains("5 pictures and 4 labels"));
        fs::write(dir.path().join("train_lossless.labels.u8"), [0, 0, 1, 1, 2]).unwrap();
        assert_eq!(labels(&spec("")), [0, 0, 1, 1, 2].map(Some));
        fs::write(dir.path().join("train_lossless.labels.u8"), [0; 6]).unwrap();
        assert!(open(&spec(""), &classes()).unwrap_err().why[0].contains("5 pictures and 6 labels"));
    }

    #[test]
    fn what_lost_nothing_comes_first_and_calibration_takes_the_training_pictures() {
        let dir = tempfile::tempdir().unwrap();
        let spec = |tail: &str| format!("packed:{}{tail}", dir.path().display());
        let size = |tail: &str, purpose| {
            let found = find(&spec(tail), &classes(), purpose).unwrap();
            (found.items[0].picture().unwrap().size(), found.note.unwrap())
        };
        write_packed(dir.path(), &[jpeg(1)], None);
        fs::copy(dir.path().join("val.jpgs"), dir.path().join("train.jpgs")).unwrap();
        fs::copy(dir.path().join("val.offsets.u32"), dir.path().join("train.offsets.u32")).unwrap();
        assert_eq!(size("", Purpose::Measure), ((8, 8), "1 pictures of val.jpgs".into()));
        assert_eq!(size("", Purpose::Calibrate), ((8, 8), "1 pictures of train.jpgs".into()));
        write_rows(dir.path(), "train", &[2]);
        let both = ((4, 2), "2 pictures of train_lossless_batch0.png, and not train.jpgs".to_string());
        assert_eq!(size("", Purpose::Calibrate), both);
        assert_eq!(size("/train", Purpose::Measure), both);
        assert_eq!(size("/train_lossless", Purpose::Measure).0, (4, 2));
        assert_eq!(size("/train.jpgs", Purpose::Measure), ((8, 8), "1 pictures of train.jpgs".into()));
    }

    #[test]
    fn rows_that_are_no_pictures_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let spec = format!("packed:{}/train_lossless", dir.path().display());
        let refused = || {
            let failure = open(&spec, &classes()).unwrap_err();
            assert_eq!(failure.class, Class::BadInput);
            failure.why[0].clone()
        };
        assert!(refused().contains("SPLIT.jpgs"));
        image::RgbImage::new(9, 3).save(dir.path().join("train_lossless_batch0.png")).unwrap();
        assert!(refused().contains("rows have 9 pixels, and a picture of 4x2 has 8"));
        write_rows(dir.path(), "train", &[3]);
        let whole = fs::read(dir.path().join("train_lossless_batch0.png")).unwrap();
        fs::write(dir.path().join("train_lossless_batch1.png"), &whole[..whole.len() / 2]).unwrap();
        refused();
        fs::write(dir.path().join("train_lossless_batch1.png"), []).unwrap();
        assert!(refused().contains("empty"));
    }
}
