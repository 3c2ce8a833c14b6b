//! Taking the place out of a picture, before it is named: where it was taken says where somebody was.
//!
//! JPEG, PNG and WebP keep it in Exif, as a directory of its own that another one points at (Exif 2.32,
//! section 4.6.3), and in XMP, which goes as a whole. Everything else stays: the orientation is Exif as
//! well. A kind of file in which a place may be and that is none of these is refused, not let through.

/// Why the place of a file cannot be taken out.
///
/// ```
/// use fieldkeep_device::LocationError;
/// let refused = LocationError::Unknown.to_string();
/// assert!(refused.starts_with("the place cannot be taken out of this kind of file"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It may say a place, in a way that is not known here.
    #[error("the place cannot be taken out of this kind of file: send a JPEG, PNG or WebP")]
    Unknown,
    /// It is not what its beginning says.
    #[error("the picture is damaged: its parts do not end where they say")]
    Damaged,
}

/// The largest picture that is looked at, in bytes: it is in memory meanwhile.
pub(crate) const LARGEST: u64 = 256 << 20;

const JPEG: &[u8] = &[0xff, 0xd8, 0xff];
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const EXIF: &[u8] = b"Exif\0\0";
/// The tag of the entry that points at the directory of places.
const GPS: u16 = 0x8825;

/// Whether a file of that media type may say a place.
pub(crate) fn may_say(media: &str) -> bool {
    ["image/", "video/"].iter().any(|family| media.starts_with(family))
}

/// A picture without the place where it was taken.
///
/// # Errors
/// See [`LocationError`].
pub(crate) fn without_place(picture: &[u8]) -> Result<Vec<u8>, LocationError> {
    if picture.starts_with(JPEG) {
        jpeg(picture)
    } else if picture.starts_with(PNG) {
        png(picture)
    } else if picture.starts_with(b"RIFF") && picture.get(8..12) == Some(b"WEBP") {
        webp(picture)
    } else if picture.starts_with(b"GIF8") {
        Ok(picture.to_vec())
    } else {
        Err(LocationError::Unknown)
    }
}

fn take(bytes: &[u8], from: usize, len: usize) -> Result<&[u8], LocationError> {
    let end = from.checked_add(len).ok_or(LocationError::Damaged)?;
    bytes.get(from..end).ok_or(LocationError::Damaged)
}

/// Segments up to the scan; what follows it is the picture itself.
fn jpeg(picture: &[u8]) -> Result<Vec<u8>, LocationError> {
    const SCAN: u8 = 0xda;
    const END: u8 = 0xd9;
    let (mut out, mut at) = (picture[..2].to_vec(), 2);
    loop {
        let [0xff, marker] = *take(picture, at, 2)? else { return Err(LocationError::Damaged) };
        if marker == 0xff {
            // Fill before a marker.
            at += 1;
            continue;
        }
        if marker == SCAN || marker == END {
            out.extend_from_slice(&picture[at..]);
            return Ok(out);
        }
        let length = take(picture, at + 2, 2)?;
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        let segment = take(picture, at, length + 2)?;
        let content = segment.get(4..).ok_or(LocationError::Damaged)?;
        let says_more = content.starts_with(b"http://ns.adobe.com/x") || marker == 0xed;
        if marker == 0xe1 && content.starts_with(EXIF) {
            let tiff = without_gps(&content[EXIF.len()..]);
            out.extend_from_slice(&segment[..4]);
            out.extend_from_slice(EXIF);
            out.extend_from_slice(&tiff);
        } else if !says_more {
            out.extend_from_slice(segment);
        }
        at += segment.len();
    }
}

fn png(picture: &[u8]) -> Result<Vec<u8>, LocationError> {
    let (mut out, mut at) = (PNG.to_vec(), PNG.len());
    while at < picture.len() {
        let head = take(picture, at, 8)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (kind, chunk) = (&head[4..8], take(picture, at, length.saturating_add(12))?);
        let content = &chunk[8..8 + length];
        let text = matches!(kind, b"tEXt" | b"zTXt" | b"iTXt");
        let says_more = [&b"XML:com.adobe.xmp"[..], b"Raw profile type"];
        if kind == b"eXIf" {
            let tiff = without_gps(content);
            out.extend_from_slice(head);
            out.extend_from_slice(&tiff);
            out.extend_from_slice(&crc32(&[kind, &tiff].concat()).to_be_bytes());
        } else if !(text && says_more.iter().any(|word| content.starts_with(word))) {
            out.extend_from_slice(chunk);
        }
        at += chunk.len();
    }
    Ok(out)
}

fn webp(picture: &[u8]) -> Result<Vec<u8>, LocationError> {
    let (mut out, mut at) = (picture[..12].to_vec(), 12);
    while at < picture.len() {
        let head = take(picture, at, 8)?;
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        // Chunks are of even length.
        let padded = length.saturating_add(length % 2);
        let chunk = match take(picture, at, padded.saturating_add(8)) {
            Ok(chunk) => chunk,
            // The last one may lack its filler.
            Err(_) => take(picture, at, length.saturating_add(8))?,
        };
        match &head[..4] {
            b"EXIF" => {
                let content = &chunk[8..8 + length];
                let skipped = if content.starts_with(EXIF) { EXIF.len() } else { 0 };
                out.extend_from_slice(&chunk[..8 + skipped]);
                out.extend_from_slice(&without_gps(&content[skipped..]));
                out.extend_from_slice(&chunk[8 + length..]);
            }
            b"XMP " => {}
            _ => out.extend_from_slice(chunk),
        }
        at += chunk.len();
    }
    let size = u32::try_from(out.len() - 8).map_err(|_| LocationError::Damaged)?;
    out[4..8].copy_from_slice(&size.to_le_bytes());
    Ok(out)
}

/// A TIFF structure of the same length whose first directory points at no places, and in which those are
/// zero. One that is not understood becomes zero as a whole: it may say anything.
fn without_gps(tiff: &[u8]) -> Vec<u8> {
    let mut out = tiff.to_vec();
    if clear_gps(&mut out).is_none() {
        out.fill(0);
    }
    out
}

fn clear_gps(tiff: &mut [u8]) -> Option<()> {
    let little = match tiff.get(..2)? {
        b"II" => true,
        b"MM" => false,
        _ => return None,
    };
    let (mut directory, mut seen) = (read(tiff, 4, 4, little)?, 0);
    while directory != 0 {
        seen += 1;
        // Directories may point at each other in a ring.
        if seen > 16 {
            return None;
        }
        let count = read(tiff, directory, 2, little)?;
        let mut entry = directory + 2;
        let mut left = count;
        while left > 0 {
            left -= 1;
            if read(tiff, entry, 2, little)? != usize::from(GPS) {
                entry += 12;
                continue;
            }
            clear_directory(tiff, read(tiff, entry + 8, 4, little)?, little)?;
            // What comes after it, and the way to the next directory, moves up.
            let end = directory + 2 + count * 12 + 4;
            tiff.get(entry..end)?;
            tiff.copy_within(entry + 12..end, entry);
            tiff[end - 12..end].fill(0);
            let fewer = u16::try_from(count - 1).ok()?;
            let bytes = if little { fewer.to_le_bytes() } else { fewer.to_be_bytes() };
            tiff[directory..directory + 2].copy_from_slice(&bytes);
            return clear_gps(tiff);
        }
        directory = read(tiff, directory + 2 + count * 12, 4, little)?;
    }
    Some(())
}

/// Makes a directory zero, with the values that lie elsewhere.
fn clear_directory(tiff: &mut [u8], at: usize, little: bool) -> Option<()> {
    let count = read(tiff, at, 2, little)?;
    for entry in (0..count).map(|nth| at + 2 + nth * 12) {
        let size = match read(tiff, entry + 2, 2, little)? {
            3 | 8 => 2,
            4 | 9 | 11 => 4,
            5 | 10 | 12 => 8,
            _ => 1,
        };
        let bytes = size * read(tiff, entry + 4, 4, little)?;
        if bytes > 4 {
            let value = read(tiff, entry + 8, 4, little)?;
            tiff.get_mut(value..value.checked_add(bytes)?)?.fill(0);
        }
    }
    tiff.get_mut(at..at + 2 + count * 12)?.fill(0);
    Some(())
}

fn read(bytes: &[u8], at: usize, len: usize, little: bool) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(len)?)?;
    let fold = |number: usize, byte: &u8| number << 8 | usize::from(*byte);
    Some(if little { bytes.iter().rev().fold(0, fold) } else { bytes.iter().fold(0, fold) })
}

/// The checksum of a PNG chunk (PNG 1.2, appendix D).
fn crc32(bytes: &[u8]) -> u32 {
    let fold = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    };
    !bytes.iter().fold(!0, fold)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One directory with an orientation and a pointer at places: a latitude of three fractions.
    fn tiff(little: bool) -> Vec<u8> {
        let short = |n: u16| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let long = |n: u32| if little { n.to_le_bytes() } else { n.to_be_bytes() };
        let entry = |tag: u16, kind: u16, count: u32, value: [u8; 4]| {
            [&short(tag)[..], &short(kind), &long(count), &value].concat()
        };
        let orientation = [short(6), [0, 0]].concat();
        let mut bytes = if little { b"II".to_vec() } else { b"MM".to_vec() };
        bytes.extend([short(42).to_vec(), long(8).to_vec(), short(3).to_vec()].concat());
        bytes.extend(entry(0x0112, 3, 1, orientation.try_into().expect("four")));
        bytes.extend(entry(GPS, 4, 1, long(8 + 2 + 36 + 4)));
        bytes.extend(entry(0x0131, 2, 4, *b"cam\0"));
        bytes.extend(long(0));
        let values = bytes.len() as u32 + 2 + 12 + 4;
        bytes.extend(short(1));
        bytes.extend(entry(2, 5, 3, long(values)));
        bytes.extend(long(0));
        bytes.extend([0x59; 24]);
        bytes
    }

    fn says_place(bytes: &[u8]) -> bool {
        bytes.windows(24).any(|part| part == [0x59; 24])
    }

    fn png_chunk(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        let length = (content.len() as u32).to_be_bytes();
        let crc = crc32(&[&kind[..], content].concat()).to_be_bytes();
        [&length[..], kind, content, &crc].concat()
    }

    #[test]
    fn the_place_goes_and_the_orientation_stays() {
        for little in [true, false] {
            let tiff = tiff(little);
            assert!(says_place(&tiff));
            let cleared = without_gps(&tiff);
            assert!(!says_place(&cleared));
            assert_eq!(cleared.len(), tiff.len());
            assert_eq!(read(&cleared, 8, 2, little), Some(2), "one entry fewer");
            assert_eq!(read(&cleared, 10, 2, little), Some(0x0112));
            assert_eq!(read(&cleared, 10 + 8, 2, little), Some(6));
            assert_eq!(read(&cleared, 10 + 12, 2, little), Some(0x0131));
            assert_eq!(read(&cleared, 10 + 24, 4, little), Some(0), "no directory after it");
            assert_eq!(without_gps(&cleared), cleared);
        }
    }

    #[test]
    fn pictures_lose_their_place_and_nothing_else() {
        let exif = [EXIF, &tiff(true)].concat();
        let length = ((exif.len() + 2) as u16).to_be_bytes();
        let xmp = b"\xff\xe1\x00\x21http://ns.adobe.com/xap/1.0/\0YY".to_vec();
        let (head, scan) = (&[0xff, 0xd8][..], &b"\xff\xda\x00\x04xxpixels"[..]);
        let picture = [head, &[0xff, 0xe1], &length, &exif, &xmp, scan].concat();
        let cleared = without_place(&picture).expect("it is read");
        assert!(!says_place(&cleared) && cleared.ends_with(scan));
        assert_eq!(cleared.len(), picture.len() - xmp.len());

        let chunks = [png_chunk(b"eXIf", &tiff(false)), png_chunk(b"IDAT", b"pixels")].concat();
        let picture = [PNG, &chunks].concat();
        let cleared = without_place(&picture).expect("it is read");
        assert!(!says_place(&cleared) && cleared.len() == picture.len());
        assert!(cleared.ends_with(&png_chunk(b"IDAT", b"pixels")));

        let chunk = |kind: &[u8; 4], content: &[u8]| {
            let length = (content.len() as u32).to_le_bytes();
            [&kind[..], &length, content, &vec![0; content.len() % 2]].concat()
        };
        let body =
            [&b"WEBP"[..], &chunk(b"VP8 ", b"pixels"), &chunk(b"EXIF", &tiff(true))].concat();
        let picture = [&b"RIFF"[..], &(body.len() as u32).to_le_bytes(), &body].concat();
        let cleared = without_place(&picture).expect("it is read");
        assert!(!says_place(&cleared) && cleared.len() == picture.len());
    }

    #[test]
    fn what_is_not_understood_is_not_let_through() {
        assert_eq!(without_place(b"\0\0\0\x18ftypheic"), Err(LocationError::Unknown));
        assert_eq!(without_place(&[0xff, 0xd8, 0xff, 0xe1, 0xff]), Err(LocationError::Damaged));
        assert!(without_gps(b"nonsense").iter().all(|byte| *byte == 0));
        // However it is cut, it is refused or says no place.
        let exif = [EXIF, &tiff(true)].concat();
        let length = ((exif.len() + 2) as u16).to_be_bytes();
        let picture = [&[0xff, 0xd8, 0xff, 0xe1][..], &length, &exif, b"\xff\xd9"].concat();
        for cut in 0..picture.len() {
            let cleared = without_place(&picture[..cut]);
            assert!(cleared.is_err() || cleared.is_ok_and(|out| !says_place(&out)), "{cut}");
        }
        for at in 4..picture.len() {
            let mut torn = picture.clone();
            torn[at] ^= 0xff;
            // No panic, whatever a byte says.
            drop(without_place(&torn));
        }
    }
}
