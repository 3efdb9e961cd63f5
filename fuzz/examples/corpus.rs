//! The first files of the targets that read pictures, into `corpus/`.

use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use std::io::Cursor;
use std::path::Path;

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).expect("an encoder for it");
    bytes.into_inner()
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("a folder that can be written");
    std::fs::write(folder.join(name), bytes).expect("a file that can be written");
}

/// The input of target `packed`.
fn packed(form: u8, [first, second, third]: [&[u8]; 3]) -> Vec<u8> {
    let mut bytes = vec![form];
    bytes.extend((first.len() as u32).to_le_bytes());
    bytes.extend(((first.len() + second.len()) as u32).to_le_bytes());
    [bytes.as_slice(), first, second, third].concat()
}

fn array(descr: &str, shape: &str, values: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    [b"\x93NUMPY\x01\x00", (header.len() as u16).to_le_bytes().as_slice(), header.as_bytes(), values].concat()
}

fn main() {
    let colours = || RgbImage::from_fn(9, 7, |x, y| Rgb([(28 * x) as u8, (36 * y) as u8, (x * y) as u8]));
    for (name, format) in [
        ("png", ImageFormat::Png),
        ("jpeg", ImageFormat::Jpeg),
        ("bmp", ImageFormat::Bmp),
        ("gif", ImageFormat::Gif),
        ("webp", ImageFormat::WebP),
    ] {
        write("picture", name, &encoded(colours(), format));
    }
    write("picture", "grey", &encoded(GrayImage::from_fn(5, 6, |x, y| Luma([(40 * x + y) as u8])), ImageFormat::Png));
    write("picture", "clear", &encoded(RgbaImage::from_pixel(4, 4, Rgba([9, 8, 7, 100])), ImageFormat::Png));
    let deep = image::ImageBuffer::<Rgb<u16>, _>::from_pixel(3, 3, Rgb([65535u16, 0, 1799]));
    write("picture", "deep", &encoded(DynamicImage::ImageRgb16(deep), ImageFormat::Png));

    let jpeg = encoded(RgbImage::from_pixel(8, 8, Rgb([90; 3])), ImageFormat::Jpeg);
    let n = jpeg.len() as u32;
    let offsets = |ends: [u32; 3]| ends.map(u32::to_le_bytes).concat();
    write("packed", "pixels", &packed(0, [&(0..48).collect::<Vec<u8>>(), &[1, 2], &[2, 0]]));
    let rows = encoded(RgbImage::from_fn(8, 3, |x, y| Rgb([x as u8, y as u8, 0])), ImageFormat::Png);
    write("packed", "rows", &packed(1, [&rows, &rows, &[0, 1, 2, 0, 1, 2]]));
    write("packed", "jpegs", &packed(2, [&[jpeg.as_slice(), &jpeg].concat(), &offsets([0, n, 2 * n]), &[2, 1]]));
    let tail = &jpeg[100..];
    write("packed", "tails", &packed(3, [&[tail, tail].concat(), &offsets([0, n - 100, 2 * n - 200]), &jpeg[..100]]));

    write("array", "floats", &array("<f4", "(2, 1, 2, 2)", &[0.5f32.to_le_bytes(); 8].concat()));
    write("array", "doubles", &array("<f8", "(1, 2, 1)", &[0.5f64.to_le_bytes(); 2].concat()));
    write("array", "bytes", &array("|u1", "(3, 2, 2)", &[7; 12]));
}
