//! A line of text as a code that cameras read.

use fieldkeep_console::{Code, Failure};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// Draws a code for the terminal.
///
/// # Errors
/// When the text is too long for one.
pub(crate) fn code(text: &str) -> Result<String, Failure> {
    let code = QrCode::new(text).map_err(|error| {
        let message = format!("this does not fit a code ({error})");
        Failure::new(Code::Failure, message, format!("type it instead: {text}"))
    })?;
    // Light modules are drawn: terminals are dark more often than not, and readers take both.
    let mut renderer = code.render::<Dense1x2>();
    renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    Ok(renderer.build())
}
