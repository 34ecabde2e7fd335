//! What nobody may read on a page: logins in URLs, and values whose name says that they are secret.

use datafusion::prelude::SessionConfig;

use super::schema::Setting;

/// A URL without user and password.
pub(super) fn hide_login(url: &str) -> String {
    let Ok(mut parsed) = url::Url::parse(url) else { return url.to_string() };
    if parsed.password().is_none() && parsed.username().is_empty() {
        return url.to_string();
    }
    if parsed.set_username("").and_then(|()| parsed.set_password(None)).is_err() {
        return "hidden".to_string();
    }
    parsed.to_string()
}

/// Words of an option's name by which its value is hidden.
const SECRET_WORDS: [&str; 8] = ["password", "secret", "token", "access_key", "credential", "private", "username", "headers"];

/// Whether a value of this name is not to be shown.
fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET_WORDS.iter().any(|word| name.contains(word))
}

/// A setting, without its value if that is a secret.
pub fn setting(name: &str, value: &str) -> Setting {
    let value = if is_secret(name) && !value.is_empty() { "hidden".to_string() } else { hide_login(value) };
    Setting { name: name.to_string(), value }
}

/// Variables of the environment which Baler and its clients read begin so.
const VARIABLES: [&str; 6] = ["AWS_", "BALER_", "KAFKA_", "MONGODB_", "OTEL_", "SSL_CERT_"];

/// What this process was told by its environment, and the options of its sessions which are set.
pub fn environment_and_options(config: &SessionConfig) -> Vec<Setting> {
    let mut settings: Vec<Setting> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| VARIABLES.iter().any(|start| name.starts_with(start)))
        .map(|(name, value)| setting(&name, &value))
        .collect();
    settings.sort_by(|a, b| a.name.cmp(&b.name));
    let mut options: Vec<(String, String)> = config.to_props().into_iter().filter(|(_, value)| !value.is_empty()).collect();
    options.sort();
    settings.extend(options.iter().map(|(name, value)| setting(name, value)));
    settings
}

/// SQL whose options with such names show no value: `'aws.secret_access_key' '…'`.
pub(crate) fn hide_secrets(statement: &str) -> String {
    let mut shown = String::with_capacity(statement.len());
    let mut is_secret = false;
    for (index, piece) in statement.split('\'').enumerate() {
        if index > 0 {
            shown.push('\'');
        }
        // Odd pieces are quoted. Between a name and its value is only white space.
        if index % 2 == 1 {
            shown.push_str(if is_secret { "hidden" } else { piece });
            is_secret = !is_secret && self::is_secret(piece);
        } else {
            is_secret &= piece.trim().is_empty();
            shown.push_str(piece);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_statements_and_urls_are_hidden() {
        let sql = "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 's3://b/' OPTIONS ('aws.secret_access_key' 'hush', 'format.delimiter' ';'); SELECT 'it''s'";
        let shown = hide_secrets(sql);
        assert!(!shown.contains("hush") && shown.contains("'aws.secret_access_key' 'hidden', 'format.delimiter' ';'"), "{shown}");
        assert!(shown.ends_with("SELECT 'it''s'"), "{shown}");
        assert_eq!([hide_login("s3://u:p@b/x"), hide_login("file:///x")], ["s3://b/x", "file:///x"]);
        let shown = ["AWS_SECRET_ACCESS_KEY", "OTEL_EXPORTER_OTLP_HEADERS", "AWS_REGION"].map(|name| setting(name, "x").value);
        assert_eq!(shown, ["hidden", "hidden", "x"]);
        assert_eq!(setting("AWS_ENDPOINT", "http://u:p@h:9000/").value, "http://h:9000/");
    }
}
