//! Part files → documents.

use std::collections::HashSet;
use std::sync::Arc;

use ::bson::RawDocumentBuf;
use bytes::BytesMut;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use smol_str::SmolStr;

use super::BsonSpec;
use crate::connector::documents::Part;
use crate::connector::stored::{DocumentSender, in_background};
use crate::error::{Error, Result, store_error};
use crate::store::Location;

/// MongoDB's limit of one document; a length above it means that the file is corrupt.
pub(crate) const DOCUMENT_BYTES_MAX: usize = 16 << 20;

/// All documents of all parts but those of these splits.
pub(crate) async fn stored_beside(
    spec: &BsonSpec,
    env: &Arc<RuntimeEnv>,
    splits: &HashSet<SmolStr>,
) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let seen: HashSet<String> = splits.iter().map(|split| spec.file_name(split)).collect();
    let mut files = part_files(spec, env).await?;
    files.retain(|path| !path.filename().is_some_and(|name| seen.contains(name)));
    read_files(spec.folder(env)?, files)
}

/// The part files.
pub(crate) async fn parts(spec: &BsonSpec, env: &Arc<RuntimeEnv>) -> Result<Vec<Part>> {
    let files = part_files(spec, env).await?;
    Ok(files.iter().filter_map(|path| path.filename()).map(|name| Part::File(name.to_string())).collect())
}

/// The documents of one part file.
pub(crate) fn read(spec: &BsonSpec, env: &Arc<RuntimeEnv>, part: &Part) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let Part::File(name) = part else { return Err(Error::internal("a dump has files only")) };
    read_named(spec, env, name)
}

fn read_named(spec: &BsonSpec, env: &Arc<RuntimeEnv>, name: &str) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    let file = spec.folder(env)?.join(name);
    let path = file.path.clone();
    read_files(file, vec![path])
}

async fn part_files(spec: &BsonSpec, env: &Arc<RuntimeEnv>) -> Result<Vec<Path>> {
    let folder = spec.folder(env)?;
    let listed = folder.store.list(Some(&folder.path)).try_collect::<Vec<_>>().await;
    let listed = listed.map_err(|e| store_error("listing", &folder.uri, &e))?;
    let is_part = |path: &Path| path.filename().is_some_and(|name| spec.is_part(name));
    let mut files: Vec<Path> = listed.into_iter().map(|meta| meta.location).filter(is_part).collect();
    files.sort();
    Ok(files)
}

/// The documents of one split, which are a part.
pub(crate) fn split_documents(spec: &BsonSpec, env: &Arc<RuntimeEnv>, split: &str) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    read_named(spec, env, &spec.file_name(split))
}

fn read_files(place: Location, files: Vec<Path>) -> Result<BoxStream<'static, Result<RawDocumentBuf>>> {
    in_background(|sender| async move {
        for file in files {
            read_file(&place.store, &file, &sender).await?;
        }
        Ok(())
    })
}

async fn read_file(store: &Arc<dyn ObjectStore>, file: &Path, sender: &DocumentSender) -> Result<()> {
    let failed = |e: object_store::Error| store_error("reading", file.as_ref(), &e);
    let mut body = store.get(file).await.map_err(failed)?.into_stream();
    let (mut pending, mut position) = (BytesMut::new(), 0u64);
    while let Some(part) = body.try_next().await.map_err(failed)? {
        pending.extend_from_slice(&part);
        while let Some(length) = document_length(&pending, file, position)? {
            if pending.len() < length {
                break;
            }
            let document = RawDocumentBuf::from_bytes(pending.split_to(length).to_vec());
            let document = document.map_err(|e| Error::decode(format!("{file}: no document at byte {position}")).with_source(e));
            position += length as u64;
            if sender.send(document).await.is_err() {
                return Ok(());
            }
        }
    }
    if pending.is_empty() {
        return Ok(());
    }
    Err(Error::decode(format!("{file}: the document at byte {position} is cut off: the file was damaged after it was written")))
}

/// The first four bytes of a document are its length, little-endian (BSON 1.1).
fn document_length(pending: &[u8], file: &Path, position: u64) -> Result<Option<usize>> {
    let Some(prefix) = pending.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_le_bytes(*prefix);
    match usize::try_from(length) {
        Ok(length) if (5..=DOCUMENT_BYTES_MAX).contains(&length) => Ok(Some(length)),
        _ => Err(Error::decode(format!("{file}: no document at byte {position}: its length would be {length}"))),
    }
}

#[cfg(test)]
mod tests {
    use object_store::PutPayload;
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;
    use crate::runtime;

    /// Reads bytes as a part file.
    fn read(bytes: &[u8]) -> Result<Vec<RawDocumentBuf>> {
        let (store, path): (Arc<dyn ObjectStore>, _) = (Arc::new(InMemory::new()), Path::from("part"));
        runtime::io()?.block_on(async {
            store.put(&path, PutPayload::from(bytes.to_vec())).await.unwrap();
            let place = Location { store, path: path.clone(), uri: "memory".to_string() };
            read_files(place, vec![path])?.try_collect().await
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn documents_come_back_and_a_cut_or_foreign_file_is_an_error(numbers in prop::collection::vec(any::<i64>(), 1..20), noise in prop::collection::vec(any::<u8>(), 1..200)) {
            let documents: Vec<RawDocumentBuf> = numbers.iter().map(|number| ::bson::rawdoc! { "_id": *number }).collect();
            let bytes: Vec<u8> = documents.iter().flat_map(|document| document.as_bytes().to_vec()).collect();
            prop_assert_eq!(read(&bytes).unwrap(), documents);
            prop_assert!(read(&bytes[..bytes.len() - 1]).is_err());
            // Noise of a plausible length may pass as a document; it must not panic, nor later, when its fields are read.
            for document in read(&noise).into_iter().flatten() {
                drop(crate::connector::receipt::DocumentFacts::read(document.as_bytes()));
            }
        }
    }
}
