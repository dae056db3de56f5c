//! Pictures for the documentation: with a palette they have a third of the size.

use std::collections::HashMap;
use std::io::Cursor;

use anyhow::ensure;
use png::{BitDepth, ColorType, Compression, Decoder, Encoder};

/// The colours of a palette.
const COLOURS: usize = 256;

/// Colours with a smaller distance (squared) are alike.
const ALIKE: u32 = 300;

type Colour = [u8; 3];

fn distance(one: &Colour, other: &Colour) -> u32 {
    one.iter().zip(other).map(|(one, other)| u32::from(one.abs_diff(*other)).pow(2)).sum()
}

/// The same picture in its most frequent colours; a page has few beside the edges of letters.
pub(super) fn smaller(file: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut reader = Decoder::new(Cursor::new(file)).read_info()?;
    let (width, height) = (reader.info().width, reader.info().height);
    let (colour, depth) = reader.output_color_type();
    ensure!(depth == BitDepth::Eight && matches!(colour, ColorType::Rgb | ColorType::Rgba), "{colour:?} {depth:?}");
    let mut bytes = vec![0; reader.output_buffer_size().unwrap_or_default()];
    reader.next_frame(&mut bytes)?;
    let pixels: Vec<Colour> =
        bytes.chunks_exact(colour.samples()).map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect();

    let mut counts: HashMap<Colour, usize> = HashMap::new();
    for pixel in &pixels {
        *counts.entry(*pixel).or_default() += 1;
    }
    let mut frequent: Vec<Colour> = counts.keys().copied().collect();
    frequent.sort_unstable_by_key(|colour| (std::cmp::Reverse(counts[colour]), *colour));
    // Shades of the edges of letters are many; a rare colour of its own is worth more than another of them.
    let mut palette: Vec<Colour> = Vec::new();
    for colour in &frequent {
        if palette.len() < COLOURS && palette.iter().all(|known| distance(known, colour) > ALIKE) {
            palette.push(*colour);
        }
    }
    let nearest = |colour: &Colour| (0..=u8::MAX).zip(&palette).min_by_key(|(_, known)| distance(colour, known));
    let indexes: HashMap<Colour, u8> = counts.keys().filter_map(|colour| Some((*colour, nearest(colour)?.0))).collect();

    let mut smaller = Vec::new();
    let mut encoder = Encoder::new(&mut smaller, width, height);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_palette(palette.concat());
    encoder.set_compression(Compression::High);
    encoder.set_filter(png::Filter::NoFilter);
    let indexed: Vec<u8> = pixels.iter().map(|pixel| indexes[pixel]).collect();
    encoder.write_header()?.write_image_data(&indexed)?;
    Ok(smaller)
}
