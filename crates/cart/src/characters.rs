//! Invisible characters.

use std::ops::RangeInclusive;

/// Characters that are invisible by themselves, in order. A name of only these characters looks like no name, or like another.
///
/// Of Unicode 16.0: the properties `White_Space` and `Default_Ignorable_Code_Point`, the format characters that are shown as
/// nothing, and characters with a blank glyph. The list is fixed here and not taken from a library, since these properties
/// change with Unicode's version: two processors with different libraries would give one command two outcomes.
const INVISIBLE: [RangeInclusive<char>; 36] = [
    '\u{0009}'..='\u{000d}',   // tab to carriage return
    '\u{0020}'..='\u{0020}',   // space
    '\u{0085}'..='\u{0085}',   // next line
    '\u{00a0}'..='\u{00a0}',   // no-break space
    '\u{00ad}'..='\u{00ad}',   // soft hyphen
    '\u{034f}'..='\u{034f}',   // combining grapheme joiner
    '\u{061c}'..='\u{061c}',   // Arabic letter mark
    '\u{115f}'..='\u{1160}',   // Hangul fillers
    '\u{1680}'..='\u{1680}',   // Ogham space mark, blank in most fonts
    '\u{17b4}'..='\u{17b5}',   // Khmer inherent vowels
    '\u{180b}'..='\u{180f}',   // Mongolian variation selectors and vowel separator
    '\u{2000}'..='\u{200a}',   // spaces of all widths
    '\u{200b}'..='\u{200f}',   // zero-width space and joiners, directional marks
    '\u{2028}'..='\u{2029}',   // line and paragraph separator
    '\u{202a}'..='\u{202e}',   // directional embeddings and overrides
    '\u{202f}'..='\u{202f}',   // narrow no-break space
    '\u{205f}'..='\u{205f}',   // medium mathematical space
    '\u{2060}'..='\u{206f}',   // word joiner, invisible operators, directional isolates, deprecated format characters
    '\u{2800}'..='\u{2800}',   // Braille pattern blank
    '\u{3000}'..='\u{3000}',   // ideographic space
    '\u{3164}'..='\u{3164}',   // Hangul filler
    '\u{fe00}'..='\u{fe0f}',   // variation selectors
    '\u{feff}'..='\u{feff}',   // zero-width no-break space, the byte order mark
    '\u{ffa0}'..='\u{ffa0}',   // half-width Hangul filler
    '\u{fff0}'..='\u{fff8}',   // unassigned, ignorable by default
    '\u{fff9}'..='\u{fffb}',   // interlinear annotation
    '\u{13441}'..='\u{13442}', // Egyptian hieroglyphs full blank and half blank
    '\u{16fe4}'..='\u{16fe4}', // Khitan small script filler
    '\u{1bca0}'..='\u{1bca3}', // shorthand format controls
    '\u{1d159}'..='\u{1d159}', // musical symbol null notehead
    '\u{1d173}'..='\u{1d17a}', // musical format controls
    '\u{e0000}'..='\u{e0000}', // unassigned, ignorable by default
    '\u{e0001}'..='\u{e0001}', // language tag
    '\u{e0002}'..='\u{e00ff}', // tags
    '\u{e0100}'..='\u{e01ef}', // variation selectors supplement
    '\u{e01f0}'..='\u{e0fff}', // unassigned, ignorable by default
];

/// Whether a character is invisible by itself.
pub(crate) fn is_invisible(character: char) -> bool {
    let place = INVISIBLE.partition_point(|range| *range.end() < character);
    INVISIBLE.get(place).is_some_and(|range| range.contains(&character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_in_order() {
        for pair in INVISIBLE.windows(2) {
            assert!(pair[0].start() <= pair[0].end() && pair[0].end() < pair[1].start(), "{pair:?}");
        }
    }

    #[test]
    fn white_space_is_invisible() {
        for character in ('\0'..=char::MAX).filter(|character| character.is_whitespace()) {
            assert!(is_invisible(character), "{}", character.escape_unicode());
        }
    }

    #[test]
    fn each_kind_is_known_up_to_its_ends() {
        for character in [
            '\u{9}',
            '\u{d}',
            ' ',
            '\u{85}',
            '\u{a0}',
            '\u{ad}',
            '\u{34f}',
            '\u{61c}',
            '\u{115f}',
            '\u{1160}',
            '\u{1680}',
            '\u{17b4}',
            '\u{17b5}',
            '\u{180b}',
            '\u{180e}',
            '\u{180f}',
            '\u{2000}',
            '\u{200b}',
            '\u{200f}',
            '\u{2028}',
            '\u{202e}',
            '\u{2060}',
            '\u{2065}',
            '\u{206f}',
            '\u{2800}',
            '\u{3000}',
            '\u{3164}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{feff}',
            '\u{ffa0}',
            '\u{fff0}',
            '\u{fffb}',
            '\u{13441}',
            '\u{16fe4}',
            '\u{1bca0}',
            '\u{1bca3}',
            '\u{1d159}',
            '\u{1d173}',
            '\u{1d17a}',
            '\u{e0000}',
            '\u{e0001}',
            '\u{e007f}',
            '\u{e0100}',
            '\u{e01ef}',
            '\u{e0fff}',
        ] {
            assert!(is_invisible(character), "{}", character.escape_unicode());
        }
        for character in [
            '\0',
            '\u{8}',
            '\u{e}',
            '!',
            'x',
            '\u{ac}',
            '\u{ae}',
            'é',
            '\u{301}',
            '漢',
            '\u{115e}',
            '\u{1161}',
            '\u{180a}',
            '\u{1810}',
            '\u{2010}',
            '\u{2027}',
            '\u{2030}',
            '\u{205e}',
            '\u{2070}',
            '\u{27ff}',
            '\u{2801}',
            '\u{3001}',
            '\u{3165}',
            '\u{fdff}',
            '\u{fe10}',
            '\u{fefe}',
            '\u{ff00}',
            '\u{ffef}',
            '\u{fffc}',
            '\u{fffd}',
            '🛒',
            '\u{e1000}',
            char::MAX,
        ] {
            assert!(!is_invisible(character), "{}", character.escape_unicode());
        }
    }
}
