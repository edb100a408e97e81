//! stub
use crate::status::Settings;
/// x
/// # Errors
/// x
pub async fn show(_: &Settings, _: &str, _: bool) -> std::io::Result<bool> {
    Ok(true)
}
