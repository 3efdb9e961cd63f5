//! Results that are maps (segmentation, depth) as pictures.

use super::failure::{Class, Failure, Outcome};
use super::place::write_new;
use cipherlens::nn::Shape;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use std::path::Path;
use zeroize::Zeroizing;

/// Writes a map as a PNG that its owner alone may read, to a new file: of one channel in greys, its least black and its greatest white; of
/// several, at each place the colour of the greatest channel ([`colour`]).
pub(crate) fn write(path: &Path, shape: Shape, values: &[f64]) -> Outcome {
    if shape.plane() < 2 {
        let what = format!("cannot write the result as a picture to {}", path.display());
        let why = format!("it is no map: {shape} (channels x rows x columns)");
        return Err(Failure::new(Class::Usage, what, why, "leave --map out; --npy writes results of every shape"));
    }
    let (width, height) = (shape.width as u32, shape.height as u32);
    let mut bytes = Zeroizing::new(Vec::new());
    let encoder = PngEncoder::new(&mut *bytes);
    let written = match shape.channels {
        1 => encoder.write_image(&greys(values), width, height, ExtendedColorType::L8),
        _ => encoder.write_image(&greatest(shape, values), width, height, ExtendedColorType::Rgb8),
    };
    written.map_err(|e| {
        let what = format!("cannot write {}", path.display());
        Failure::from_error(Class::BadInput, what, &e, "write the map with --npy")
    })?;
    write_new(path, &bytes)
}

fn greys(values: &[f64]) -> Zeroizing<Vec<u8>> {
    let (least, most) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| (a.min(*v), b.max(*v)));
    let grey = |v: &f64| if most > least { (255.0 * (v - least) / (most - least)).round() as u8 } else { 128 };
    Zeroizing::new(values.iter().map(grey).collect())
}

fn greatest(shape: Shape, values: &[f64]) -> Zeroizing<Vec<u8>> {
    let plane = shape.plane();
    let class = |at: usize| {
        let value = |c: usize| values[c * plane + at];
        (1..shape.channels).fold(0, |best, c| if value(c) > value(best) { c } else { best })
    };
    Zeroizing::new((0..plane).flat_map(|at| colour(class(at))).collect())
}

/// The colour of a class: black for the first, then the bits of its number dealt to red, green and blue, the highest first, so that
/// neighbours differ most (as Pascal VOC colours its segmentations).
fn colour(class: usize) -> [u8; 3] {
    let channel = |c: usize| (0..8).fold(0, |colour, bit| colour | ((class >> (3 * bit + c) & 1) as u8) << (7 - bit));
    [0, 1, 2].map(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_those_of_the_convention_and_all_different() {
        assert_eq!(
            [0, 1, 2, 3, 4, 7, 8, 9].map(colour),
            [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 128, 128], [64, 0, 0], [192, 0, 0],]
        );
        let all: std::collections::HashSet<_> = (0..4096).map(colour).collect();
        assert_eq!(all.len(), 4096);
    }

    #[test]
    fn maps_are_read_back_as_they_were_meant() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("map.png");
        let depth = [-1.0, 0.0, 1.0, 3.0, 2.0, -1.0];
        write(&path, Shape::new(1, 2, 3), &depth).unwrap_or_else(|e| panic!("{e:?}"));
        let read = image::open(&path).expect("a PNG").into_luma8();
        assert_eq!((read.dimensions(), read.into_raw()), ((3, 2), vec![0, 64, 128, 255, 191, 0]));
        assert!(write(&path, Shape::new(1, 2, 3), &depth).is_err(), "it is there already");

        let classes = dir.path().join("classes.png");
        write(&classes, Shape::new(3, 1, 2), &[0.5, 0.5, 1.0, 0.5, 0.0, 2.0]).unwrap_or_else(|e| panic!("{e:?}"));
        let read = image::open(&classes).expect("a PNG").into_rgb8();
        assert_eq!(read.into_raw(), [colour(1), colour(2)].concat());
        assert!(write(&dir.path().join("none.png"), Shape::new(10, 1, 1), &[0.0; 10]).is_err(), "logits are no map");
    }
}
