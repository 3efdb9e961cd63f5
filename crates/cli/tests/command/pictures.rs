//! Pictures of all sorts, made here.

use image::codecs::gif::GifEncoder;
use image::{DynamicImage, Frame, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use std::fs::File;
use std::path::Path;

/// Smooth colours that differ everywhere.
pub(crate) fn colours(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([(100 * x / width) as u8, 100 + (120 * y / height) as u8, 30]))
}

/// One colour: red, green or blue.
pub(crate) fn plain(colour: &str, side: u32) -> RgbImage {
    RgbImage::from_pixel(side, side, Rgb(["red", "green", "blue"].map(|c| if c == colour { 250 } else { 10 })))
}

/// A grey wedge.
pub(crate) fn grey(width: u32, height: u32) -> GrayImage {
    GrayImage::from_fn(width, height, |x, _| Luma([(255 * x / width) as u8]))
}

/// A grey wedge, 16 bits a sample.
pub(crate) fn grey16(width: u32, height: u32) -> DynamicImage {
    DynamicImage::ImageLuma16(ImageBuffer::from_fn(width, height, |x, _| Luma([(65535 * x / width) as u16])))
}

/// Colours, 16 bits a sample.
pub(crate) fn colours16(width: u32, height: u32) -> DynamicImage {
    let pixel = |x, y| Rgb([(20_000 * x / width) as u16, 30_000 + (30_000 * y / height) as u16, 1000]);
    DynamicImage::ImageRgb16(ImageBuffer::from_fn(width, height, pixel))
}

/// Partly transparent.
pub(crate) fn transparent(width: u32, height: u32) -> RgbaImage {
    RgbaImage::from_fn(width, height, |x, _| Rgba([200, 30, 30, (255 * x / width) as u8]))
}

/// A GIF of three frames.
pub(crate) fn save_animated_gif(path: &Path) {
    write_gif(path, 3);
}

/// A GIF of one frame.
pub(crate) fn save_gif(path: &Path) {
    write_gif(path, 1);
}

fn write_gif(path: &Path, frames: u32) {
    let mut encoder = GifEncoder::new(File::create(path).expect("a file can be written"));
    let frame = |_| Frame::new(DynamicImage::from(colours(12, 12)).into_rgba8());
    encoder.encode_frames((0..frames).map(frame)).expect("a GIF can be written");
}

/// The beginning of a PNG that claims a size and has no pixels.
pub(crate) fn header_only_png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
    bytes.extend(width.to_be_bytes());
    bytes.extend(height.to_be_bytes());
    bytes.extend([8, 2, 0, 0, 0]);
    let crc = crc32(&bytes[12..]);
    bytes.extend(crc.to_be_bytes());
    bytes
}

/// CRC-32 as PNG uses it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, &b| {
        (0..8).fold(crc ^ u32::from(b), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}
