//! Readers of the command: pictures, packed sets of pictures, arrays. None may panic; each answers whether the bytes were accepted.

use cipherlens_cli::dataset::{self, Expected};
use cipherlens_cli::npy::Array;
use cipherlens_cli::picture::Picture;
use cipherlens::nn::model::Fit;

/// Sides above this are read but not resized, which would take the time of other inputs.
const SIDE: u32 = 512;

/// A picture, then brought to a network's size.
pub fn picture(bytes: &[u8]) -> bool {
    let Ok(picture) = Picture::decode(bytes, "cannot read the picture") else { return false };
    let (width, height) = picture.size();
    if width <= SIDE && height <= SIDE {
        for (channels, fit) in [(3, Fit::Crop), (1, Fit::Stretch)] {
            let _ = picture.fit(channels, 7, 5, fit);
        }
    }
    true
}

/// A folder of packed pictures. Byte 0 chooses the form, bytes 1 to 4 and 5 to 8 say where the second and third file begin.
pub fn packed(bytes: &[u8]) -> bool {
    let Some((head, rest)) = bytes.split_at_checked(9) else { return false };
    let place = |at: usize| (u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize).min(rest.len());
    let (second, third) = (place(1).min(place(5)), place(1).max(place(5)));
    let parts = [&rest[..second], &rest[second..third], &rest[third..]];
    let names: [&str; 3] = match head[0] % 4 {
        0 => ["val_lossless.nhwc.u8", "val.labels.u8", "val_lossless.labels.u8"],
        1 => ["val_lossless_batch0.png", "val_lossless_batch1.png", "val.labels.u8"],
        2 => ["val.jpgs", "val.offsets.u32", "val.labels.u8"],
        _ => ["val.jpgtails", "val.offsets.u32", "jpeg_header.bin"],
    };
    let dir = tempfile::tempdir().expect("a folder");
    for (name, part) in names.iter().zip(parts) {
        // An empty part is a file that is not there.
        if !part.is_empty() {
            std::fs::write(dir.path().join(name), part).expect("a file that can be written");
        }
    }
    let expected = Expected { classes: ["a", "b", "c"].map(String::from).to_vec(), outputs: 3, size: [2, 4] };
    let Ok(items) = dataset::open(&format!("packed:{}", dir.path().display()), &expected) else { return false };
    items.iter().take(4).for_each(|item| {
        let _ = item.open();
    });
    true
}

/// A `.npy` array, and its first and last inputs.
pub fn array(bytes: &[u8]) -> bool {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("a.npy");
    std::fs::write(&path, bytes).expect("a file that can be written");
    let Ok(array) = Array::open(&path) else { return false };
    for index in [0, array.count - 1] {
        let _ = array.read(index);
    }
    true
}
