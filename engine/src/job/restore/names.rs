//! Objects' names → names below the target. Before: `s3://bucket/prefix/a/b.gz`; after: `a/b`.

use std::collections::{BTreeMap, HashSet};

use crate::connector::blob::Compression;
use crate::error::{Error, Result};
use crate::object_writer::HIDDEN_PREFIX;

/// The name of an object relative to the location which a job read: what is below its folder, or what follows the fixed folders of
/// its glob; of a single object its last part.
///
/// # Errors
/// Conflict, for a name that would leave the target folder. No store lists one; a manifest which somebody changed may hold it.
pub(super) fn relative_name(location: &str, object: &str) -> Result<String> {
    let folder = match location.find(['*', '?', '[']) {
        _ if location.trim_end_matches('/') == object => parent(object),
        Some(glob) => parent(&location[..glob]),
        None => location.trim_end_matches('/'),
    };
    let name = object.strip_prefix(folder).and_then(|name| name.strip_prefix('/')).unwrap_or_default();
    let is_plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if !name.split('/').all(is_plain) {
        return Err(Error::conflict(format!("{object} has no place below {location}: its name would leave the target folder")));
    }
    if name.rsplit('/').next().is_some_and(|last| last.starts_with(HIDDEN_PREFIX)) {
        return Err(Error::conflict(format!("{object}: names which begin with {HIDDEN_PREFIX} are those of unfinished files")));
    }
    Ok(name.to_string())
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The name without the suffix which promises a compression that its content has no more.
pub(super) fn plain_name(name: &str, compression: Compression) -> &str {
    let stem = name.rsplit_once('.').map_or("", |(stem, _)| stem);
    let says_so = !matches!(compression, Compression::None | Compression::Auto) && Compression::from_suffix(name) == compression;
    if says_so && !stem.is_empty() && !stem.ends_with('/') { stem } else { name }
}

/// Refuses names which cannot be below one target at the same time. `names` are of one object each.
///
/// # Errors
/// Conflict, naming both objects.
pub(super) fn check_distinct(names: &[(&str, &str)], is_local: bool, remedy: &str) -> Result<()> {
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, object) in names {
        if let Some(other) = taken.insert(name, object) {
            return Err(Error::conflict(format!("{object} and {other} would both be written as {name}; {remedy}")));
        }
    }
    if is_local {
        for (name, object) in names {
            let folders = name.match_indices('/').map(|(end, _)| &name[..end]);
            if let Some(other) = folders.filter_map(|folder| taken.get(folder)).next() {
                return Err(Error::conflict(format!(
                    "{other} cannot be a file, because {object} lies below it; restore into s3:// instead"
                )));
            }
        }
    }
    Ok(())
}

/// All folders in which these names lie.
pub(super) fn folders_of<'a>(names: impl Iterator<Item = &'a str>) -> HashSet<&'a str> {
    names.flat_map(|name| name.match_indices('/').map(move |(end, _)| &name[..end])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_their_relation_to_what_was_read() {
        for (location, object, name) in [
            ("s3://b/in/", "s3://b/in/x/y.txt", "x/y.txt"),
            ("s3://b/in", "s3://b/in/x/y.txt", "x/y.txt"),
            ("s3://b/", "s3://b/100% #1?.log", "100% #1?.log"),
            ("file:///a/2026-*/**/*.log", "file:///a/2026-01/x/y.log", "2026-01/x/y.log"),
            ("s3://b/*.log", "s3://b/y.log", "y.log"),
            ("file:///a/one.txt", "file:///a/one.txt", "one.txt"),
            ("file:///a/what?.txt", "file:///a/what?.txt", "what?.txt"),
        ] {
            assert_eq!(relative_name(location, object).unwrap(), name);
        }
    }

    #[test]
    fn no_name_leaves_the_target_folder() {
        for object in
            ["s3://b/in/../x", "s3://b/in/a/../../x", "s3://b/in/a/./x", "s3://b/in/a//x", "s3://b/in/..", "s3://other/x", "s3://b/in/"]
        {
            let error = relative_name("s3://b/in/", object).unwrap_err().to_string();
            assert!(error.contains(object) && error.contains("target folder"), "{error}");
        }
        assert!(relative_name("s3://b/in/", "s3://b/in/.baler-12-0").is_err());
    }

    #[test]
    fn a_suffix_is_dropped_with_the_compression_it_promises() {
        assert_eq!(plain_name("a/b.json.gz", Compression::Gzip), "a/b.json");
        assert_eq!(plain_name("a/b.ZST", Compression::Zstd), "a/b");
        assert_eq!(plain_name("a/b.gz", Compression::None), "a/b.gz");
        assert_eq!(plain_name("a/b.log", Compression::Gzip), "a/b.log");
        assert_eq!(plain_name("a/.gz", Compression::Gzip), "a/.gz");
    }

    #[test]
    fn names_which_exclude_each_other_are_refused() {
        let refused = |names: &[(&str, &str)], is_local| check_distinct(names, is_local, "do otherwise").unwrap_err().to_string();
        let text = refused(&[("a", "a.gz"), ("b", "b"), ("a", "a")], false);
        assert!(text.contains("a and a.gz") && text.contains("do otherwise"), "{text}");
        assert!(refused(&[("a", "a"), ("a/b/c", "a/b/c")], true).contains("below it"));
        check_distinct(&[("a", "a"), ("a/b/c", "a/b/c")], false, "").unwrap();
        check_distinct(&[("a/b", "a/b"), ("a/c", "a/c")], true, "").unwrap();
    }
}
