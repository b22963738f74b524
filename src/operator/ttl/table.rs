//! One column of all jobs, as `kubectl get` gets it: what metadata does not have, without the rest of the objects.

use kube::api::ListParams;
use kube::{Client, Resource};
use serde::Deserialize;
use serde_json::Value;

use crate::api::CrewJob;

/// Rows per page. A row has a few hundred bytes, and as much again as the job's topic has.
const PAGE: u32 = 100;
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

/// Why a column could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused, or did not answer.
    #[error(transparent)]
    Kube(#[from] kube::Error),
    /// The API server has another definition of the resource.
    #[error("CrewJobs have no column {0}; apply their definition with: crewjob crds apply")]
    Missing(&'static str),
}

/// A column that is read page by page.
pub struct Column {
    client: Client,
    name: &'static str,
    next: Option<ListParams>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    #[serde(default)]
    metadata: Page,
    column_definitions: Vec<Definition>,
    #[serde(default)]
    rows: Option<Vec<Row>>,
}

#[derive(Deserialize, Default)]
struct Page {
    #[serde(default, rename = "continue")]
    more: String,
}

#[derive(Deserialize)]
struct Definition {
    name: String,
}

#[derive(Deserialize)]
struct Row {
    cells: Vec<Value>,
}

impl Column {
    /// The column of this name, of the jobs that this field selector finds.
    pub fn of(client: Client, name: &'static str, selector: &str) -> Self {
        Self { client, name, next: Some(ListParams::default().fields(selector).limit(PAGE)) }
    }

    /// The texts of the next rows; `None` after the last.
    pub async fn next_page(&mut self) -> Result<Option<Vec<String>>, Error> {
        let Some(page) = self.next.take() else { return Ok(None) };
        let jobs = kube::core::Request::new(CrewJob::url_path(&(), None));
        let mut request = jobs.list(&page).map_err(kube::Error::BuildRequest)?;
        if let Ok(table) = TABLE.parse() {
            request.headers_mut().insert("accept", table);
        }
        if let Ok(without_objects) = format!("{}&includeObject=None", request.uri()).parse() {
            *request.uri_mut() = without_objects;
        }
        let table: Table = self.client.request(request).await?;
        let at = table.column_definitions.iter().position(|column| column.name == self.name);
        let at = at.ok_or(Error::Missing(self.name))?;
        let more = table.metadata.more;
        self.next = (!more.is_empty()).then(|| page.continue_token(&more));
        let texts =
            table.rows.into_iter().flatten().filter_map(|mut row| match row.cells.get_mut(at).map(Value::take) {
                Some(Value::String(text)) => Some(text),
                Some(_) | None => None,
            });
        Ok(Some(texts.collect()))
    }
}
