//! The folder of one job: plain JSON files, each created once and atomically (`put-if-absent`), in any object store.
//!
//! ```text
//! <state>/<job>/manifest.json          <state>/<job>/receipts/<split>.json
//! <state>/<job>/commit.json            <state>/<job>/dead-letters/<split>-<n>.json
//! <state>/<job>/attempts/<n>.json
//! ```

use std::collections::HashMap;
use std::fmt::Display;

use chrono::{DateTime, Utc};
use datafusion::execution::runtime_env::RuntimeEnv;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use super::JobRef;
use super::dead_letter::DeadLetter;
use super::folder::{FileVersion, StateFolder};
use super::manifest::Manifest;
use crate::connector::receipt::{Receipt, SCHEMA_VERSION};
use crate::error::Result;

/// Totals of a finished job. Its existence, and nothing else, means success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Name of the job.
    pub job: String,
    /// Hash of its statement.
    pub statement_hash: String,
    /// Splits, each with a receipt.
    pub splits: u64,
    /// Sum over the receipts.
    pub documents: u64,
    /// Sum over the receipts.
    pub records: u64,
    /// Sum over the receipts.
    pub raw_bytes: u64,
    /// Sum over the receipts.
    pub compressed_bytes: u64,
    /// Sum over the receipts.
    pub dead_letters: u64,
    /// When the last receipt was there.
    pub committed: DateTime<Utc>,
}

/// A job's state.
#[derive(Debug, Clone)]
pub struct JobState {
    folder: StateFolder,
}

impl JobState {
    /// The state of a job; touches nothing yet.
    ///
    /// # Errors
    /// Config, when the state URL is not valid.
    pub fn open(env: &RuntimeEnv, job: &JobRef) -> Result<Self> {
        Ok(Self { folder: StateFolder::open(env, &job.state, &job.name)? })
    }

    /// How people name it.
    pub fn uri(&self) -> &str {
        self.folder.uri()
    }

    /// The manifest, if the job was begun.
    ///
    /// # Errors
    /// As the store's; Decode for a file of a later version.
    pub async fn manifest(&self) -> Result<Option<Manifest>> {
        self.folder.read("manifest.json").await
    }

    /// Which manifest is there now, if any; reads none of it.
    ///
    /// # Errors
    /// As the store's.
    pub async fn manifest_version(&self) -> Result<Option<FileVersion>> {
        self.folder.version("manifest.json").await
    }

    /// Stores the manifest; `false` if another driver was first.
    ///
    /// # Errors
    /// As the store's.
    pub async fn put_manifest(&self, manifest: &Manifest) -> Result<bool> {
        self.folder.create("manifest.json", manifest).await
    }

    /// The receipt of a split, if it is done.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn receipt(&self, split: &str) -> Result<Option<Receipt>> {
        self.folder.read(&format!("receipts/{split}.json")).await
    }

    /// Stores a receipt. A second one for the same split is dropped, and the answer is `false`: both attempts wrote the same documents.
    ///
    /// # Errors
    /// As the store's.
    pub async fn put_receipt(&self, receipt: &Receipt) -> Result<bool> {
        self.folder.create(&format!("receipts/{}.json", receipt.split), receipt).await
    }

    /// Names of the splits that have a receipt, in no order; reads none of them.
    ///
    /// # Errors
    /// As the store's.
    pub async fn receipt_names(&self) -> Result<Vec<String>> {
        Ok(self.receipt_versions().await?.into_iter().map(|(split, _version)| split).collect())
    }

    /// As [`Self::receipt_names`], each with the version of its receipt: what is tried once more gets another one.
    ///
    /// # Errors
    /// As the store's.
    pub async fn receipt_versions(&self) -> Result<Vec<(String, FileVersion)>> {
        let files = self.folder.list_versions("receipts").await?;
        Ok(files.iter().filter_map(|(path, version)| Some((path.filename()?.strip_suffix(".json")?.to_string(), *version))).collect())
    }

    /// The receipts of these splits, all of which have one, in no order.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn receipts_of(&self, splits: &[impl Display]) -> Result<Vec<Receipt>> {
        self.folder.read_files(self.receipt_files(splits)).await
    }

    /// The receipts of those of these splits which have one, in no order; lists nothing.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn find_receipts(&self, splits: &[impl Display]) -> Result<Vec<Receipt>> {
        let found = self.folder.find_files(self.receipt_files(splits)).await?;
        Ok(found.into_iter().filter_map(|(_path, receipt)| receipt).collect())
    }

    fn receipt_files(&self, splits: &[impl Display]) -> Vec<object_store::path::Path> {
        splits.iter().map(|split| self.folder.path(&format!("receipts/{split}.json"))).collect()
    }

    /// All receipts, by split.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn receipts(&self) -> Result<HashMap<SmolStr, Receipt>> {
        let receipts: Vec<Receipt> = self.folder.read_all("receipts").await?;
        Ok(receipts.into_iter().map(|receipt| (receipt.split.clone(), receipt)).collect())
    }

    /// Stores a split's dead letters.
    ///
    /// # Errors
    /// As the store's.
    pub async fn put_dead_letters(&self, split: &str, letters: &[DeadLetter]) -> Result<()> {
        for (number, letter) in letters.iter().enumerate() {
            self.folder.create(&format!("dead-letters/{split}-{number}.json"), letter).await?;
        }
        Ok(())
    }

    /// All dead letters.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetter>> {
        self.folder.read_all("dead-letters").await
    }

    /// At most `most` dead letters, the first by the names of their files, and how many there are.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn some_dead_letters(&self, most: usize) -> Result<(Vec<DeadLetter>, usize)> {
        let mut files = self.folder.list("dead-letters").await?;
        let all = files.len();
        files.sort();
        files.truncate(most);
        let found = self.folder.find_files(files).await?.into_iter();
        // One which is gone by now was retried.
        Ok((found.filter_map(|(_path, letter)| letter).collect(), all))
    }

    /// Forgets that these splits are done: the commit, their receipts and their dead letters, in this order. Idempotent.
    ///
    /// # Errors
    /// As the store's.
    pub async fn forget(&self, splits: &[String]) -> Result<()> {
        self.folder.remove(vec!["commit.json".to_string()]).await?;
        self.folder.remove(splits.iter().map(|split| format!("receipts/{split}.json")).collect()).await?;
        let is_of = |path: &object_store::path::Path| {
            let split = path.filename().and_then(|name| name.rsplit_once('-')).map(|(split, _number)| split);
            split.is_some_and(|split| splits.iter().any(|known| known == split))
        };
        let letters = self.folder.list("dead-letters").await?;
        let names = letters.iter().filter(|path| is_of(path)).filter_map(|path| Some(format!("dead-letters/{}", path.filename()?)));
        self.folder.remove(names.collect()).await
    }

    /// Removes all files of the job. Idempotent.
    ///
    /// # Errors
    /// As the store's.
    pub async fn remove(&self) -> Result<()> {
        self.folder.remove_all().await
    }

    /// The commit, if the job is done.
    ///
    /// # Errors
    /// As [`Self::manifest`].
    pub async fn commit(&self) -> Result<Option<Commit>> {
        self.folder.read("commit.json").await
    }

    /// Stores the commit; `false` if another driver was first.
    ///
    /// # Errors
    /// As the store's.
    pub async fn put_commit(&self, commit: &Commit) -> Result<bool> {
        self.folder.create("commit.json", commit).await
    }

    /// Notes that a driver begins, and tells which attempt this is.
    ///
    /// # Errors
    /// As the store's.
    pub async fn begin_attempt(&self) -> Result<u32> {
        let mut attempt = self.attempts().await? as u32 + 1;
        let note = serde_json::json!({ "schema_version": SCHEMA_VERSION, "started": Utc::now() });
        while !self.folder.create(&format!("attempts/{attempt:06}.json"), &note).await? {
            attempt += 1;
        }
        Ok(attempt)
    }

    /// How often a driver has begun.
    ///
    /// # Errors
    /// As the store's.
    pub async fn attempts(&self) -> Result<usize> {
        Ok(self.folder.list("attempts").await?.len())
    }
}
