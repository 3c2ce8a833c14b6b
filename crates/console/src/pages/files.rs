//! Files of a record: had as downloads, attached by a form, and seen as small pictures whose pixels are made
//! here. What somebody attached is never shown as it is: it might be a page of its own.

use std::io::{BufReader, Cursor, Read as _, Seek as _, Write as _};
use std::path::Path as FilePath;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Multipart, Path, State};
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse as _;
use axum::routing::{get, post};
use fieldkeep_device::Device;
use fieldkeep_model::{BlobHash, RecordKey};
use futures_util::stream::unfold;
use image::{ImageDecoder as _, ImageError, ImageFormat, ImageReader};

use super::{Answer, back, key, record_path, segment};
use crate::refusal::Refusal;
use crate::server::App;
use crate::shape::Attachment;
use crate::{Code, Failure};

/// How long a file is waited for that is not here.
const PATIENCE: Duration = Duration::from_secs(120);
/// The longer side of a small picture, in pixels.
const SMALL: u32 = 192;
/// The largest picture that is decoded, in pixels, and the memory that may take, in bytes.
const PIXELS: u64 = 64_000_000;
const DECODED: u64 = 256 << 20;
/// The longest file that is looked at for a picture, in bytes.
const READ: u64 = 64 << 20;
/// Bytes that are sent at once.
const PIECE: usize = 64 * 1024;

/// The files of a field, as a page shows them.
#[derive(Debug)]
pub(super) struct Field {
    /// The field.
    pub(super) name: String,
    /// What a browser may choose from.
    pub(super) accept: String,
    pub(super) files: Vec<Shown>,
}

/// A file, as a page shows it.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) file: Attachment,
    pub(super) size: String,
    /// Where it is had.
    pub(super) path: String,
    /// Where a small picture of it is, if there can be one.
    pub(super) small: Option<String>,
}

/// The fields of a record that hold files, with those that they hold.
///
/// # Errors
/// When the disk fails.
pub(super) fn fields(device: &Device, key: &RecordKey) -> Result<Vec<Field>, Failure> {
    let Some(catalog) = device.catalog() else { return Ok(Vec::new()) };
    let Some(object) = catalog.ty(&key.ty) else { return Ok(Vec::new()) };
    let files: Vec<Attachment> =
        device.files(Some(key))?.into_iter().map(Attachment::from).collect();
    let own = format!("/files/{}/{}", segment(key.ty.as_str()), segment(key.id.as_str()));
    let holding = object.fields.iter().filter_map(|(name, field)| {
        let attachments = field.attachments.as_ref()?;
        let files = files.iter().filter(|file| file.field == *name);
        let shown = files.map(|file| Shown {
            size: size(file.size),
            path: format!("{own}/{}", file.hash),
            small: (file.here && is_picture(&file.media))
                .then(|| format!("{own}/{}/small", file.hash)),
            file: file.clone(),
        });
        let accept = attachments.media.join(",");
        Some(Field { name: name.clone(), accept, files: shown.collect() })
    });
    Ok(holding.collect())
}

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/files/{type}/{id}/{hash}", get(download))
        .route("/files/{type}/{id}/{hash}/small", get(small))
        // Each field says how large a file may be, and that is looked at as it comes.
        .route("/files/{type}/{id}", post(attach).layer(DefaultBodyLimit::disable()))
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let units = [(1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / unit as f64),
        None => format!("{bytes} bytes"),
    }
}

fn is_picture(media: &str) -> bool {
    ["image/jpeg", "image/png", "image/webp", "image/gif"].contains(&media)
}

/// A file, as a download and nothing else; fetched first if it is not here.
async fn download(
    State(app): State<App>,
    Path((ty, id, hash)): Path<(String, String, String)>,
) -> Answer {
    let (key, hash) = (key(&ty, &id)?, parsed(&hash)?);
    let path = app.device().fetch(&key, &hash, PATIENCE).await.map_err(Failure::from)?;
    let of = key.clone();
    let files = app.on_disk(move |app| app.device().files(Some(&of)).map_err(Failure::from));
    let name = files.await?.into_iter().find(|view| view.file.hash == hash);
    let name = name.map_or_else(|| hash.to_string(), |view| view.file.name);
    let (file, length) = app.on_disk(move |_| opened(&path)).await?;
    // RFC 6266, section 4.1, and RFC 8187: the name as bytes that no header takes for anything else.
    let disposition = format!("attachment; filename*=UTF-8''{}", segment(&name));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (header::CONTENT_LENGTH, HeaderValue::from(length)),
        (header::CONTENT_DISPOSITION, header_value(&disposition)?),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
    ];
    let body = unfold(Some(file), |file| async move {
        let mut file = file?;
        let read = tokio::task::spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let read = file.read(&mut piece);
            read.map(|length| (file, Bytes::from(piece).slice(..length)))
        });
        match read.await.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok((_, piece)) if piece.is_empty() => None,
            Ok((file, piece)) => Some((Ok(piece), Some(file))),
            Err(error) => Some((Err(error), None)),
        }
    });
    Ok((headers, Body::from_stream(body)).into_response())
}

/// A small picture of one that is here.
async fn small(
    State(app): State<App>,
    Path((ty, id, hash)): Path<(String, String, String)>,
) -> Answer {
    let (key, hash) = (key(&ty, &id)?, parsed(&hash)?);
    let easel = app.easel().await;
    let made = app.on_disk(move |app| {
        // Kept until the picture is made, whether somebody waits for it or not.
        let _easel = easel;
        let files = app.device().files(Some(&key))?;
        let view = files.into_iter().find(|view| view.file.hash == hash && view.here);
        let view = view.ok_or_else(|| Failure::absent(format!("{key} {hash}")))?;
        made_small(&app.device().file_path(&view.file.hash))
    });
    let headers = [
        (header::CONTENT_TYPE, "image/png"),
        (header::CACHE_CONTROL, "private, max-age=31536000, immutable"),
    ];
    Ok((headers, made.await?).into_response())
}

/// Decodes a picture within bounds, and writes a small one anew.
fn made_small(path: &FilePath) -> Result<Vec<u8>, Failure> {
    let unseen = |text: String| {
        Failure::new(Code::Held, format!("this is no picture that can be shown: {text}"), "")
    };
    let unmade = |error: ImageError| unseen(error.to_string());
    let (file, length) = opened(path)?;
    if length > READ {
        return Err(unseen(format!("{} are too many", size(length))));
    }
    let reader = ImageReader::new(BufReader::new(file)).with_guessed_format();
    let mut reader = reader.map_err(|error| unseen(error.to_string()))?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(DECODED);
    reader.limits(limits.clone());
    let mut decoder = reader.into_decoder().map_err(unmade)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS {
        return Err(unseen(format!("{width} by {height} pixels are too many")));
    }
    // What is decoded into counts as well; the decoder has the rest.
    limits.reserve(decoder.total_bytes()).map_err(unmade)?;
    decoder.set_limits(limits).map_err(unmade)?;
    let orientation = decoder.orientation().map_err(unmade)?;
    let picture = image::DynamicImage::from_decoder(decoder);
    let mut picture = picture.map_err(unmade)?.thumbnail(SMALL, SMALL);
    picture.apply_orientation(orientation);
    let mut small = Cursor::new(Vec::new());
    picture.to_rgba8().write_to(&mut small, ImageFormat::Png).map_err(unmade)?;
    Ok(small.into_inner())
}

/// Attaches what a form sends.
async fn attach(
    State(app): State<App>,
    Path((ty, id)): Path<(String, String)>,
    mut form: Multipart,
) -> Answer {
    let key = key(&ty, &id)?;
    let broken = |text: String| {
        Failure::new(Code::Failure, format!("the file did not come whole: {text}"), "try again")
    };
    let mut field = String::new();
    while let Some(mut part) = form.next_field().await.map_err(|e| broken(e.body_text()))? {
        if part.name() == Some("field") {
            field = part.text().await.map_err(|error| broken(error.body_text()))?;
            continue;
        }
        let name = part.file_name().unwrap_or_default().to_owned();
        if name.is_empty() {
            let remedy = "choose one first";
            return Err(Failure::new(Code::Usage, "no file was chosen", remedy).into());
        }
        let media = part.content_type().map(str::to_owned);
        let most = largest(app.device(), &key, &field)?;
        let unkept = |error: std::io::Error| Failure::file(app.device().directory(), &error);
        let mut kept = tempfile::NamedTempFile::new_in(app.device().directory()).map_err(unkept)?;
        let mut came = 0u64;
        while let Some(piece) = part.chunk().await.map_err(|error| broken(error.body_text()))? {
            came += piece.len() as u64;
            if came > most {
                let text = format!("the file has more than {} that {field} takes", size(most));
                return Err(Failure::new(Code::Held, text, "nothing was attached").into());
            }
            kept.write_all(&piece).map_err(unkept)?;
        }
        kept.rewind().map_err(unkept)?;
        let (of, field) = (key.clone(), field.clone());
        app.on_disk(move |app| {
            // What the browser says of its kind counts where the name does not say it.
            let media = media.as_deref().filter(|media| *media != "application/octet-stream");
            app.attach(&of, &field, kept.path(), (&name, media))
        })
        .await?;
    }
    Ok(back(&record_path(&key.ty, &key.id)))
}

/// The largest file that a field takes.
fn largest(device: &Device, key: &RecordKey, field: &str) -> Result<u64, Refusal> {
    let catalog = device.catalog();
    let object = catalog.as_ref().and_then(|catalog| catalog.ty(&key.ty));
    let attachments = object.and_then(|object| object.fields.get(field)?.attachments.as_ref());
    let largest = attachments.map(|attachments| attachments.max_size);
    largest.ok_or_else(|| Failure::new(Code::Usage, "no such field holds files", "").into())
}

fn parsed(hash: &str) -> Result<BlobHash, Refusal> {
    hash.parse().map_err(|_| Refusal::nowhere())
}

fn header_value(text: &str) -> Result<HeaderValue, Refusal> {
    let unfit = |_| Failure::new(Code::Failure, "the file's name cannot be told", "");
    Ok(HeaderValue::from_str(text).map_err(unfit)?)
}

fn opened(path: &FilePath) -> Result<(std::fs::File, u64), Failure> {
    let failed = |error: std::io::Error| Failure::file(path, &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    Ok((file, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small_of(bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(bytes).expect("it is written");
        made_small(file.path())
    }

    #[test]
    fn a_picture_is_made_small_and_what_is_none_is_refused() {
        let mut large = Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(900, 300, image::Rgb([200, 30, 30]));
        picture.write_to(&mut large, ImageFormat::Png).expect("it is written");
        let small = small_of(&large.into_inner()).expect("it is read");
        let small = image::load_from_memory(&small).expect("a picture");
        assert_eq!((small.width(), small.height()), (192, 64));
        assert!(small_of(b"<svg onload='alert(1)'/>").is_err());
    }

    /// A picture that says how large it is, with next to nothing behind that (PNG 1.2, section 4.1).
    fn claiming(width: u32, height: u32, depth: u8, kind: u8) -> Vec<u8> {
        let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
        let header = [&size[..], &[depth, kind, 0, 0, 0]].concat();
        let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, body) in [(b"IHDR", &header[..]), (b"IDAT", &[0x78, 0x9c][..])] {
            png.extend((body.len() as u32).to_be_bytes());
            let chunk = [&name[..], body].concat();
            png.extend(&chunk);
            // Its check value (annex 15).
            let turned = |mut sum: u32| {
                (0..8).for_each(|_| sum = (sum >> 1) ^ (0xedb8_8320 * (sum & 1)));
                sum
            };
            let sum = chunk
                .iter()
                .fold(!0u32, |sum, byte| (sum >> 8) ^ turned((sum ^ u32::from(*byte)) & 0xff));
            png.extend((!sum).to_be_bytes());
        }
        png
    }

    #[test]
    fn a_picture_that_takes_too_much_memory_is_not_decoded() {
        for (claim, why) in [
            (claiming(30_000, 30_000, 8, 2), "too many"),
            // Few enough pixels, of eight bytes each.
            (claiming(10_000, 6_000, 16, 6), "limit"),
        ] {
            let refused = small_of(&claim).expect_err("it is too large").message.to_lowercase();
            assert!(refused.contains(why), "{refused}");
        }
        // One of a size that is fine is begun, and found to be cut short.
        let refused = small_of(&claiming(10, 10, 16, 6)).expect_err("nothing is in it").message;
        assert!(!refused.contains("limit") && !refused.contains("too many"), "{refused}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_for_a_picture() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        file.as_file().set_len(50 << 30).expect("a hole of 50 GiB");
        let refused = made_small(file.path()).expect_err("it is too long").message;
        assert!(refused.contains("53.7 GB are too many"), "{refused}");
    }

    #[test]
    fn sizes_are_told_as_people_read_them() {
        assert_eq!(size(999), "999 bytes");
        assert_eq!(size(1_500), "1.5 kB");
        assert_eq!(size(2_000_000_000), "2.0 GB");
    }
}
