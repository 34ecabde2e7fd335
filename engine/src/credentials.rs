//! Secrets: never in a statement or plan, only by name out of the environment or out of the file which it names.

use crate::error::{Error, Result};

/// The secret `<name>_<suffix>`, or the content of the file which `<name>_<suffix>_FILE` names; `None` if neither is set.
///
/// # Errors
/// Config, when the file cannot be read.
pub fn read_secret(name: &str, suffix: &str) -> Result<Option<String>> {
    let variable = |variable: &str| std::env::var(variable).ok().filter(|value| !value.is_empty());
    if let Some(secret) = variable(&format!("{name}_{suffix}")) {
        return Ok(Some(secret));
    }
    let Some(file) = variable(&format!("{name}_{suffix}_FILE")) else { return Ok(None) };
    let text = std::fs::read_to_string(&file)
        .map_err(|e| Error::config(format!("cannot read {file}, which {name}_{suffix}_FILE names")).with_source(e))?;
    Ok(Some(text.trim_end().to_string()))
}

/// User and password under `<name>_USERNAME` and `<name>_PASSWORD` (or `<name>_PASSWORD_FILE`); `None` without a user.
///
/// # Errors
/// Config, when there is a user without a password, or the file cannot be read.
pub fn read_credentials(name: &str) -> Result<Option<(String, String)>> {
    let Some(username) = read_secret(name, "USERNAME")? else { return Ok(None) };
    let password = read_secret(name, "PASSWORD")?;
    let password =
        password.ok_or_else(|| Error::config(format!("{name}_USERNAME is set, but neither {name}_PASSWORD nor {name}_PASSWORD_FILE")))?;
    Ok(Some((username, password)))
}
