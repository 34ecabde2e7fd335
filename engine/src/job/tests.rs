//! State files and what a repeated task does with them.

use std::collections::HashMap;

use chrono::Utc;
use datafusion::physical_plan::collect;
use proptest::prelude::*;

use super::JobRef;
use super::folder::parse;
use super::manifest::{Manifest, group_splits};
use super::run::{bind, physical_plan};
use super::seen::SeenJob;
use super::state::JobState;
use crate::connector::SinkSpec;
use crate::connector::blob::{BlobSpec, Compression};
use crate::connector::bson::BsonSpec;
use crate::connector::receipt::{Receipt, SCHEMA_VERSION};
use crate::connector::source::SourceSpec;
use crate::connector::split::Split;
use crate::error::{Error, Result};
use crate::runtime;
use crate::session::local_session;
use crate::statement;

const COMPRESS_SQL: &str = include_str!("../../../sql/compress.sql");

fn split(number: u64, folder: &str) -> Split {
    Split {
        id: format!("{number:016x}").into(),
        object: format!("{folder}/{number}.txt").into(),
        version: "1-2".into(),
        size: 10,
        last_modified: 3,
        compression: Compression::None,
        start: 0,
        end: 10,
    }
}

fn receipt(split: &Split, documents: u64) -> Receipt {
    Receipt {
        schema_version: SCHEMA_VERSION,
        split: split.id.clone(),
        documents,
        records: 1,
        raw_bytes: 10,
        compressed_bytes: 5,
        first_byte: Some(0),
        next_byte: Some(10),
        already_there: 0,
        dead_letters: 0,
        digest: "00".into(),
        attempt: 1,
        executor: "here/1".into(),
        started: Utc::now(),
        finished: Utc::now(),
    }
}

/// Writes two splits whose objects do not exist; `done` of them have a receipt.
fn write_again(done: u64) -> Result<u64> {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    runtime::io()?.block_on(async {
        let context = local_session()?;
        let job = JobRef::try_new(&format!("{place}/state"), "again")?;
        let state = JobState::open(&context.runtime_env(), &job)?;
        let splits = [split(1, &format!("file://{place}")), split(2, &format!("file://{place}"))];
        for split in &splits[..done as usize] {
            state.put_receipt(&receipt(split, 7)).await?;
        }
        let variables = HashMap::from([("INPUT".into(), place.clone()), ("OUTPUT".into(), format!("{place}/dump"))]);
        let mut insert = None;
        for parsed in statement::parse(&statement::substitute(COMPRESS_SQL, &variables)?)? {
            match statement::plan(&context, parsed).await? {
                datafusion::logical_expr::LogicalPlan::Dml(dml) => insert = Some(dml),
                plan => drop(context.execute_logical_plan(plan).await?),
            }
        }
        let plan = bind(&insert.unwrap(), &job, Some(&[splits.to_vec()]))?;
        let rows = collect(physical_plan(&context, plan).await?, context.task_ctx()).await.map_err(Error::from)?;
        let counts = datafusion::arrow::array::cast::AsArray::as_primitive::<datafusion::arrow::datatypes::UInt64Type>(rows[0].column(0));
        Ok(counts.value(0))
    })
}

#[test]
fn a_task_that_is_run_again_answers_from_its_receipts_and_reads_nothing() {
    assert_eq!(write_again(2).unwrap(), 14);
    // The same task without a receipt does read, and so finds that the object is gone.
    let error = write_again(1).unwrap_err().to_string();
    assert!(error.contains("2.txt") && error.contains("does not exist"), "{error}");
}

fn manifest(statement: &str, count: u64) -> Manifest {
    let splits: Vec<Split> = (0..count).map(|number| split(number, "file:///in")).collect();
    let source = BlobSpec::try_new("file:///in/", &HashMap::new()).unwrap();
    let sink = SinkSpec::Bson(BsonSpec::try_new("file:///out/", &HashMap::new()).unwrap());
    Manifest::new("job", statement, Some(SourceSpec::Blob(source)), sink, group_splits(&splits))
}

struct Count(usize);

impl From<Manifest> for Count {
    fn from(manifest: Manifest) -> Self {
        Self(manifest.receipt_names().count())
    }
}

impl From<&Receipt> for Count {
    fn from(receipt: &Receipt) -> Self {
        Self(receipt.documents as usize)
    }
}

#[test]
fn a_watcher_sees_splits_done_once_more_and_jobs_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let seen = runtime::io().unwrap().block_on(async {
        let context = local_session()?;
        let state = JobState::open(&context.runtime_env(), &JobRef::try_new(&folder.path().display().to_string(), "job")?)?;
        let mut known = SeenJob::<Count, Count>::default();
        let mut seen = Vec::new();
        let mut look = async |state: &JobState| {
            let splits = known.manifest(state).await?.map(|splits| splits.0);
            known.read_receipts(state).await?;
            let (first, second) = (split(0, "").id, split(1, "").id);
            seen.push((splits, [first, second].map(|id| known.receipt(&id).map(|count| count.0)), known.receipts().count()));
            Ok::<_, Error>(())
        };
        look(&state).await?;
        state.put_manifest(&Manifest { by_split: true, ..manifest("INSERT", 2) }).await?;
        state.put_receipt(&receipt(&split(0, ""), 7)).await?;
        look(&state).await?;
        // A split is done once more between two looks, as `dead-letters retry` lets it.
        state.forget(&[split(0, "").id.to_string()]).await?;
        state.put_receipt(&receipt(&split(0, ""), 8)).await?;
        state.put_receipt(&receipt(&split(1, ""), 1)).await?;
        look(&state).await?;
        state.forget(&[split(1, "").id.to_string()]).await?;
        look(&state).await?;
        state.remove().await?;
        look(&state).await?;
        state.put_manifest(&Manifest { by_split: true, ..manifest("INSERT", 3) }).await?;
        look(&state).await?;
        Ok::<_, Error>(seen)
    });
    let wanted = [
        (None, [None, None], 0),
        (Some(2), [Some(7), None], 1),
        (Some(2), [Some(8), Some(1)], 2),
        (Some(2), [Some(8), None], 1),
        (None, [None, None], 0),
        (Some(3), [None, None], 0),
    ];
    assert_eq!(seen.unwrap(), wanted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn state_files_come_back_and_foreign_bytes_are_an_error(statement in ".{0,40}", count in 0u64..20, cut in 0usize..400, noise in prop::collection::vec(any::<u8>(), 0..200)) {
        let manifest = manifest(&statement, count);
        let text = serde_json::to_vec_pretty(&manifest).unwrap();
        prop_assert_eq!(&parse::<Manifest>("m", &text).unwrap(), &manifest);
        prop_assert_eq!(manifest.splits().count() as u64, count);
        prop_assert!(parse::<Manifest>("m", &text[..cut.min(text.len() - 1)]).is_err());
        prop_assert!(parse::<Manifest>("m", &noise).is_err());
        prop_assert!(parse::<Receipt>("r", &noise).is_err());
        prop_assert!(parse::<Receipt>("r", &text).is_err());
    }

    #[test]
    fn a_state_file_of_a_later_version_is_refused_in_words(later in SCHEMA_VERSION + 1..) {
        let mut manifest = manifest("INSERT", 1);
        manifest.schema_version = later;
        let error = parse::<Manifest>("m.json", &serde_json::to_vec(&manifest).unwrap()).unwrap_err().to_string();
        prop_assert!(error.contains("m.json") && error.contains("later Baler"), "{}", error);
    }
}
