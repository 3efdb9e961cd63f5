//! Pictures: from any file a person has to the exact size a network wants, saying what was changed on the way.

use super::failure::{Class, Failure, Outcome};
use cipherlens::nn::model::Fit;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use image::codecs::gif::GifDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::imageops::FilterType;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};
use std::io::{Cursor, Read};
use std::path::Path;
use zeroize::{Zeroize, Zeroizing};

/// Largest picture file read, bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;
/// Most memory that decoding may take, bytes: 128 million pixels of four colours. A file of some hundred bytes can ask for as much.
const MAX_DECODED_BYTES: u64 = 512 << 20;
/// Largest width or height, pixels.
const MAX_SIDE: u32 = 20_000;
/// Formats this build reads, for messages.
const FORMATS: &str = "PNG, JPEG, GIF, BMP or WebP";

/// `--fit`, with what each value means.
pub fn fits() -> impl TypedValueParser<Value = Fit> {
    let values = [
        PossibleValue::new("crop").help("The largest centred part of the right aspect"),
        PossibleValue::new("stretch").help("All of it, stretched"),
    ];
    PossibleValuesParser::new(values).map(|fit| if fit == "stretch" { Fit::Stretch } else { Fit::Crop })
}

/// Pixels of eight bits and three colours, wiped when dropped: a picture that is encrypted is nobody else's.
#[derive(Debug, Clone)]
struct Pixels(DynamicImage);

impl Drop for Pixels {
    fn drop(&mut self) {
        if let Some(image) = self.0.as_mut_rgb8() {
            image.as_mut().zeroize();
        }
    }
}

/// A decoded picture.
#[derive(Debug, Clone)]
pub struct Picture {
    image: Pixels,
    /// What was changed while reading.
    pub notes: Vec<String>,
}

/// A picture at the size a network wants.
#[derive(Debug, Clone)]
pub struct Fitted {
    /// Pixels, `[channel][row][column]`, in [0, 1].
    pub planes: Zeroizing<Vec<f64>>,
    /// What was changed since the file.
    pub notes: Vec<String>,
}

impl Picture {
    /// Reads a picture file.
    ///
    /// # Errors
    /// [`Class::BadInput`] for a file that cannot be read, is too large or a folder; those of [`Self::decode`].
    pub fn open(path: &Path) -> Outcome<Self> {
        let what = format!("cannot read the picture {}", path.display());
        let advice = format!("name a {FORMATS} file that you may read");
        let io_failure = |e: std::io::Error| Failure::from_error(Class::BadInput, &what, &e, &advice);
        let about = std::fs::metadata(path).map_err(io_failure)?;
        if about.is_dir() {
            return Err(Failure::new(Class::BadInput, what, "it is a directory", advice));
        }
        if about.len() > MAX_FILE_BYTES {
            let why = format!("it has {} bytes, more than the {MAX_FILE_BYTES} this program reads", about.len());
            return Err(Failure::new(Class::BadInput, what, why, "make the picture smaller"));
        }
        // A device has no length of its own.
        let mut bytes = Zeroizing::new(Vec::with_capacity(about.len() as usize));
        let file = std::fs::File::open(path).map_err(io_failure)?;
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_failure)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let why = format!("it has more than the {MAX_FILE_BYTES} bytes that this program reads");
            return Err(Failure::new(Class::BadInput, what, why, "make the picture smaller"));
        }
        Self::decode(&bytes, &what)
    }

    /// Decodes the bytes of a picture file; `what` begins the message of a failure.
    ///
    /// # Errors
    /// [`Class::BadInput`] for an empty or damaged file, one in a format that is not read, or sides beyond the limit.
    pub fn decode(bytes: &[u8], what: &str) -> Outcome<Self> {
        let refuse = |why: String, advice: &str| Failure::new(Class::BadInput, what, why, advice);
        if bytes.is_empty() {
            return Err(refuse("the file is empty".into(), &format!("name a {FORMATS} file")));
        }
        let mut reader = ImageReader::new(Cursor::new(bytes))
            .with_guessed_format()
            .map_err(|e| Failure::from_error(Class::BadInput, what, &e, "name another file"))?;
        let Some(format) = reader.format().filter(ImageFormat::reading_enabled) else {
            let advice = format!("convert it to one of {FORMATS}");
            return Err(refuse("its contents are in no picture format that this build reads".into(), &advice));
        };
        reader.limits(limits());
        let damaged = |e: image::ImageError| {
            let advice = "the file may be damaged, cut short or far too large: open it in an image viewer and save it again";
            Failure::from_error(Class::BadInput, what, &e, advice)
        };
        let mut decoder = reader.into_decoder().map_err(damaged)?;
        let (width, height) = decoder.dimensions();
        if width == 0 || height == 0 {
            return Err(refuse(format!("it has no pixels ({width}x{height})"), "name another file"));
        }
        // Not every decoder asks the limits for the whole picture.
        if decoder.total_bytes() > MAX_DECODED_BYTES {
            let why =
                format!("{width}x{height} pixels would take {} bytes, more than {MAX_DECODED_BYTES}", decoder.total_bytes());
            return Err(refuse(why, "make the picture smaller"));
        }
        let orientation = decoder.orientation().map_err(damaged)?;
        let mut notes = Vec::new();
        let mut image = DynamicImage::from_decoder(decoder).map_err(damaged)?;
        if format == ImageFormat::Jpeg && jpeg_components(bytes) == Some(4) {
            notes.push("four printing inks (CMYK) turned into red, green and blue without a colour profile".into());
        }
        if is_animated(bytes, format) {
            notes.push("animated: only the first frame is used".into());
        }
        if orientation != image::metadata::Orientation::NoTransforms {
            image.apply_orientation(orientation);
            notes.push("turned upright, as its EXIF data asks".into());
        }
        Ok(Self { image: Pixels(to_rgb8(image, &mut notes)), notes })
    }

    /// From red, green and blue of each pixel, row by row, of `[rows, columns]`.
    ///
    /// # Errors
    /// [`Class::BadInput`] unless there are three bytes for each pixel, and both sides are within the limit.
    pub fn from_pixels(pixels: &[u8], [rows, columns]: [usize; 2]) -> Outcome<Self> {
        let side = |n: usize| u32::try_from(n).ok().filter(|n| (1..=MAX_SIDE).contains(n));
        let sides = side(columns).zip(side(rows));
        let image = sides.and_then(|(width, height)| image::RgbImage::from_raw(width, height, pixels.to_vec()));
        let image = image.ok_or_else(|| {
            let why = format!("{} bytes are no picture of {columns}x{rows}", pixels.len());
            Failure::new(Class::BadInput, "cannot read a picture", why, "make the packed files again")
        })?;
        Ok(Self { image: Pixels(DynamicImage::ImageRgb8(image)), notes: Vec::new() })
    }

    /// Red, green and blue of each pixel, row by row.
    pub fn into_pixels(mut self) -> Vec<u8> {
        std::mem::take(&mut self.image.0).into_rgb8().into_raw()
    }

    /// Width and height.
    pub fn size(&self) -> (u32, u32) {
        (self.image.0.width(), self.image.0.height())
    }

    /// Brings the picture to `height` x `width`, with `channels` 3 (RGB) or 1 (brightness).
    ///
    /// # Errors
    /// [`Class::BadInput`] for other channels than 1 or 3, or sides beyond the limit.
    pub fn fit(&self, channels: usize, height: usize, width: usize, fit: Fit) -> Outcome<Fitted> {
        let mut notes = self.notes.clone();
        let side = |n: usize| u32::try_from(n).ok().filter(|&n| n > 0 && n <= MAX_SIDE);
        let (Some(rows), Some(columns), 1 | 3) = (side(height), side(width), channels) else {
            let why = format!("the network wants {channels} channels of {height} x {width}; pictures have 1 or 3 channels");
            return Err(Failure::new(
                Class::BadInput,
                "the picture does not fit this network",
                why,
                "use a network for pictures",
            ));
        };
        let (from_width, from_height) = self.size();
        // A large picture is not copied: a part of it is, and what comes of that.
        let mut part = None;
        if fit == Fit::Crop && u64::from(from_width) * u64::from(rows) != u64::from(from_height) * u64::from(columns) {
            let (w, h) = centred(from_width, from_height, columns, rows);
            part = Some(Pixels(self.image.0.crop_imm((from_width - w) / 2, (from_height - h) / 2, w, h)));
            notes.push(format!("centre {w}x{h} of {from_width}x{from_height}"));
        }
        let image = part.as_ref().unwrap_or(&self.image);
        let (width, height) = (image.0.width(), image.0.height());
        if (width, height) != (columns, rows) {
            let verb = if width < columns || height < rows { "enlarged" } else { "reduced" };
            notes.push(format!("{verb} from {width}x{height} to {columns}x{rows}"));
            part = Some(Pixels(image.0.resize_exact(columns, rows, FilterType::Triangle)));
        }
        let image = part.as_ref().unwrap_or(&self.image);
        let Some(image) = image.0.as_rgb8() else {
            return Err(Failure::new(
                Class::Bug,
                "the picture was not brought to eight bits",
                "it has others",
                super::failure::BUG_ADVICE,
            ));
        };
        let plane = rows as usize * columns as usize;
        let mut planes = Zeroizing::new(vec![0.0; channels * plane]);
        if channels == 3 {
            for (i, pixel) in image.pixels().enumerate() {
                for c in 0..3 {
                    planes[c * plane + i] = f64::from(pixel.0[c]) / 255.0;
                }
            }
        } else {
            let mut coloured = false;
            for (to, pixel) in planes.iter_mut().zip(image.pixels()) {
                coloured |= pixel.0[0] != pixel.0[1] || pixel.0[1] != pixel.0[2];
                *to = f64::from(luma(pixel.0)) / 255.0;
            }
            notes.retain(|note| note != GREY);
            if coloured {
                notes.push("colours dropped: brightness is 0.299 red + 0.587 green + 0.114 blue (Rec. 601)".into());
            }
        }
        Ok(Fitted { planes, notes })
    }
}

/// Said of a picture without colours, where the network reads three.
const GREY: &str = "grey: the same value in red, green and blue";

/// Brightness by Rec. 601 in whole numbers, as PIL, torchvision and OpenCV compute it for the networks they train.
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((19_595 * u32::from(red) + 38_470 * u32::from(green) + 7_471 * u32::from(blue) + 0x8000) >> 16) as u8
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    limits
}

/// Whether there is more than one frame. Damage after the first frame is not an error: only that frame is used.
fn is_animated(bytes: &[u8], format: ImageFormat) -> bool {
    let source = || Cursor::new(bytes);
    match format {
        ImageFormat::Gif => GifDecoder::new(source())
            .is_ok_and(|mut d| d.set_limits(limits()).is_ok() && d.into_frames().take(2).filter(Result::is_ok).count() == 2),
        ImageFormat::Png => PngDecoder::new(source()).is_ok_and(|d| d.is_apng().unwrap_or(false)),
        ImageFormat::WebP => WebPDecoder::new(source()).is_ok_and(|d| d.has_animation()),
        _ => false,
    }
}

/// Colour components of a JPEG, as its frame header says; none if no frame begins.
fn jpeg_components(bytes: &[u8]) -> Option<u8> {
    // After the first marker, segments of a marker and a length (ITU-T T.81, B.1.1.4).
    let mut rest = bytes.get(2..)?;
    loop {
        let [0xff, marker, ..] = *rest else { return None };
        // A marker may be preceded by any number of such bytes.
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        // All SOF markers: DHT, JPG and DAC are among their numbers.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return rest.get(9).copied();
        }
        let length = usize::from(u16::from_be_bytes([*rest.get(2)?, *rest.get(3)?]));
        rest = rest.get(2 + length..)?;
    }
}

/// Eight bits, three colours, no transparency.
fn to_rgb8(image: DynamicImage, notes: &mut Vec<String>) -> DynamicImage {
    let color = image.color();
    if color.bytes_per_pixel() / color.channel_count() > 1 {
        notes.push(format!("{} bits a sample reduced to 8", 8 * u16::from(color.bytes_per_pixel() / color.channel_count())));
    }
    if !color.has_color() {
        notes.push(GREY.into());
    }
    if !color.has_alpha() {
        return DynamicImage::ImageRgb8(image.into_rgb8());
    }
    let rgba = image.into_rgba8();
    if rgba.pixels().any(|p| p.0[3] != 255) {
        notes.push("transparent parts laid over white".into());
    }
    let over_white = |v: u8, alpha: u8| {
        let (v, alpha) = (u32::from(v), u32::from(alpha));
        ((v * alpha + 255 * (255 - alpha) + 127) / 255) as u8
    };
    DynamicImage::ImageRgb8(image::RgbImage::from_fn(rgba.width(), rgba.height(), |x, y| {
        let [r, g, b, a] = rgba.get_pixel(x, y).0;
        image::Rgb([over_white(r, a), over_white(g, a), over_white(b, a)])
    }))
}

/// The largest size with the aspect `to_width : to_height` inside `width` x `height`, at least one pixel a side.
fn centred(width: u32, height: u32, to_width: u32, to_height: u32) -> (u32, u32) {
    let (w, h, tw, th) = (u64::from(width), u64::from(height), u64::from(to_width), u64::from(to_height));
    let fit = |full: u64, num: u64, den: u64| u32::try_from((full * num / den).max(1)).unwrap_or(u32::MAX);
    if w * th > h * tw { (fit(h, tw, th), height) } else { (width, fit(w, th, tw)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{GrayImage, Luma, Rgb, RgbImage, Rgba, RgbaImage};

    fn png(image: DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn read(bytes: &[u8]) -> Picture {
        Picture::decode(bytes, "cannot read the picture").unwrap()
    }

    #[test]
    fn exact_size_is_taken_as_it_is() {
        let image = RgbImage::from_fn(4, 3, |x, y| Rgb([x as u8, y as u8, 255]));
        let fitted = read(&png(image.into())).fit(3, 3, 4, Fit::Crop).unwrap();
        assert!(fitted.notes.is_empty());
        assert_eq!(fitted.planes.len(), 36);
        assert_eq!(fitted.planes[4 + 2], 2.0 / 255.0, "row 1, column 2 of red");
        assert_eq!(fitted.planes[12 + 4 + 2], 1.0 / 255.0, "row 1 of green");
        assert_eq!(fitted.planes[24], 1.0);
    }

    #[test]
    fn components_of_a_jpeg_are_those_of_its_frame() {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(RgbImage::new(9, 7)).write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        let jpeg = bytes.into_inner();
        assert_eq!(jpeg_components(&jpeg), Some(3));
        // Tables, a fill byte and a frame of four components.
        let cmyk = [0xff, 0xd8, 0xff, 0xdb, 0, 3, 0, 0xff, 0xff, 0xc2, 0, 20, 8, 0, 1, 0, 1, 4];
        assert_eq!(jpeg_components(&cmyk), Some(4));
        for cut in 0..cmyk.len() {
            assert_eq!(jpeg_components(&cmyk[..cut]), None, "{cut}");
        }
        assert_eq!(jpeg_components(&[0xff, 0xd8, 0xff, 0xd9, 0, 0]), None, "length 0 leads nowhere");
    }

    #[test]
    fn a_few_bytes_cannot_ask_for_a_gigabyte() {
        let mut bytes = Cursor::new(Vec::new());
        DynamicImage::from(RgbaImage::new(2, 2)).write_to(&mut bytes, ImageFormat::Gif).unwrap();
        let mut gif = bytes.into_inner();
        assert!(Picture::decode(&gif, "").is_ok());
        // Width and height of the screen.
        gif[6..10].copy_from_slice(&[0x40, 0x40, 0x40, 0x40]);
        let refused = Picture::decode(&gif, "").unwrap_err();
        assert!(refused.why[0].contains("16448x16448"), "{:?}", refused.why);
    }

    #[test]
    fn crop_takes_the_centre_and_stretch_takes_all() {
        // Left third black, middle third white, right third black.
        let image = RgbImage::from_fn(9, 3, |x, _| if (3..6).contains(&x) { Rgb([255; 3]) } else { Rgb([0; 3]) });
        let picture = read(&png(image.into()));
        assert!(picture.fit(3, 3, 3, Fit::Crop).unwrap().planes.iter().all(|&v| v == 1.0));
        let stretched = picture.fit(3, 3, 3, Fit::Stretch).unwrap();
        assert!(stretched.planes[0] < 0.5 && stretched.planes[1] > 0.5);
    }

    #[test]
    fn grey_sixteen_bit_and_transparent_pictures_are_converted_and_it_is_said() {
        let grey = GrayImage::from_pixel(5, 5, Luma([100]));
        let fitted = read(&png(grey.into())).fit(3, 5, 5, Fit::Crop).unwrap();
        assert!(fitted.planes.iter().all(|&v| (v - 100.0 / 255.0).abs() < 1e-12));
        assert!(fitted.notes[0].starts_with("grey"));

        let deep = image::ImageBuffer::<Rgb<u16>, _>::from_pixel(5, 5, Rgb([65535u16, 0, 257 * 7]));
        let fitted = read(&png(DynamicImage::ImageRgb16(deep))).fit(3, 5, 5, Fit::Crop).unwrap();
        assert_eq!((fitted.planes[0], fitted.planes[25], fitted.planes[50]), (1.0, 0.0, 7.0 / 255.0));
        assert!(fitted.notes[0].starts_with("16 bits"));

        let clear = RgbaImage::from_pixel(5, 5, Rgba([0, 0, 0, 0]));
        let fitted = read(&png(clear.into())).fit(1, 5, 5, Fit::Crop).unwrap();
        assert!(fitted.planes.iter().all(|&v| v == 1.0));
        assert_eq!(fitted.notes, ["transparent parts laid over white"], "white has no colours to drop");
    }

    #[test]
    fn brightness_is_that_of_rec_601() {
        // PIL: Image.new("RGB", (1, 1), c).convert("L").getpixel((0, 0)).
        for (colour, brightness) in
            [([0, 255, 0], 150), ([255, 0, 0], 76), ([0, 0, 255], 29), ([255; 3], 255), ([10, 20, 30], 18), ([200, 100, 7], 119)]
        {
            let fitted = read(&png(RgbImage::from_pixel(2, 2, Rgb(colour)).into())).fit(1, 2, 2, Fit::Crop).unwrap();
            assert_eq!(*fitted.planes, [f64::from(brightness) / 255.0; 4], "{colour:?}");
            let dropped = colour != [colour[0]; 3];
            assert_eq!(fitted.notes.iter().any(|n| n.contains("colours dropped") && n.contains("0.587")), dropped, "{colour:?}");
        }
        // Nothing is dropped from a grey file, of any depth, and nothing is said.
        for level in [0u8, 1, 127, 128, 255] {
            let fitted = read(&png(GrayImage::from_pixel(2, 2, Luma([level])).into())).fit(1, 2, 2, Fit::Crop).unwrap();
            assert_eq!((fitted.planes[0], fitted.notes.len()), (f64::from(level) / 255.0, 0));
        }
        let deep = image::ImageBuffer::<Luma<u16>, _>::from_pixel(2, 2, Luma([257 * 90]));
        let fitted = read(&png(DynamicImage::ImageLuma16(deep))).fit(1, 2, 2, Fit::Crop).unwrap();
        assert_eq!((fitted.planes[0], &*fitted.notes.concat()), (90.0 / 255.0, "16 bits a sample reduced to 8"));
    }

    #[test]
    fn centred_parts_keep_the_aspect() {
        assert_eq!(centred(451, 300, 128, 128), (300, 300));
        assert_eq!(centred(300, 451, 128, 128), (300, 300));
        assert_eq!(centred(1, 1000, 128, 64), (1, 1));
        assert_eq!(centred(640, 480, 4, 3), (640, 480));
    }

    #[test]
    fn damage_is_refused_with_a_reason() {
        let bytes = png(RgbImage::from_pixel(40, 40, Rgb([1, 2, 3])).into());
        for cut in [0, 1, 7, 8, 20, 40, bytes.len() - 13] {
            let failure = Picture::decode(&bytes[..cut], "x").unwrap_err();
            assert_eq!(failure.class, Class::BadInput, "cut at {cut}");
            assert!(!failure.why[0].is_empty());
        }
        assert!(Picture::decode(b"plain text, not a picture", "x").unwrap_err().why[0].contains("no picture format"));
    }
}
