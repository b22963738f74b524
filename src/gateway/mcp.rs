//! `POST /mcp`: the short form as tools of the Model Context Protocol, over its streamable HTTP transport without sessions.
//!
//! A job is a durable task of the protocol too, under its own id: every replica answers for it, also after a restart.
//! <https://modelcontextprotocol.io/specification>

mod tasks;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CancelTaskParams, CreateTaskResult, GetTaskParams,
    GetTaskResult, Implementation, JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities,
    ServerConfig, TaskPayload, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::answer::{self, Answer};
use super::caller::Caller;
use super::context::Gateway;
use super::{jobs, submit, view};
use crate::core::gateway::id::JobId;
use crate::core::gateway::problem::Problem;

/// How large a result may be that is read for an answer.
const RESULT: usize = 16 << 20;
/// How often a job that is followed is read.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long a job is followed unless told otherwise, and at most: proxies give up on what is silent for a minute.
const FOLLOWED: (u64, u64) = (20, 50);

/// Answers one message of the protocol.
pub async fn answer(gateway: &Arc<Gateway>, caller: &Caller, parts: &Parts, body: Bytes) -> Answer {
    let mut request = Request::new(Body::from(body));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = parts.uri.clone();
    *request.headers_mut() = parts.headers.clone();
    let server = Server { gateway: gateway.clone(), caller: caller.clone() };
    // From which hosts and pages requests may come was looked at before, as for all others.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        .with_cancellation_token(gateway.stop.child_token())
        .disable_allowed_hosts();
    let service =
        StreamableHttpService::new(move || Ok(server.clone()), Arc::new(NeverSessionManager::default()), config);
    service.handle(request).await.map(Body::new)
}

/// The server of one message.
#[derive(Clone)]
struct Server {
    gateway: Arc<Gateway>,
    caller: Caller,
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_tasks().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("crewjob", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "Runs AI crew jobs. run_job makes one and returns its id at once; follow_job waits for its end, and \
                 get_job_result returns what came of it.",
            )
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::of(&self.gateway.fields, self.may_change())))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::of(&self.gateway.fields, self.may_change()).into_iter().find(|tool| tool.name == name)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let given = request.arguments.unwrap_or_default();
        let name = &*request.name;
        if !tools::is_known(name, self.may_change()) {
            let detail = if tools::is_known(name, true) { "this server is read-only" } else { "there is no such tool" };
            return Err(ErrorData::invalid_params(format!("{name}: {detail}"), None));
        }
        let is_task = context.client_capabilities().is_some_and(|client| client.supports_tasks());
        let called = match name {
            tools::RUN => match self.run(given).await {
                Ok(job) if is_task => {
                    return Ok(CallToolResponse::Task(CreateTaskResult::new(tasks::task_of_answer(&job))));
                }
                called => called,
            },
            tools::GET => self.get(&given).await,
            tools::FOLLOW => self.follow(&given).await,
            tools::RESULT => self.result(&given).await,
            _ => self.cancel(&given).await,
        };
        Ok(result_of(called).into())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<GetTaskResult, ErrorData> {
        let id = self.id(&request.task_id).map_err(|problem| refused(&problem))?;
        let job = jobs::read(&self.gateway, &self.caller, &id).await.map_err(|problem| refused(&problem))?;
        let payload = match view::phase(&job) {
            "Succeeded" => tasks::completed(result_of(self.result_of(&id).await)),
            "Failed" => {
                let shown = json!({ "job": self.shown(&job) });
                tasks::completed(CallToolResult::structured_error(shown))
            }
            "Cancelled" => TaskPayload::Cancelled,
            _ => TaskPayload::Working,
        };
        Ok(GetTaskResult::new(tasks::detailed(&id, &job, payload)))
    }

    async fn cancel_task(
        &self,
        request: CancelTaskParams,
        _context: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        if !self.may_change() {
            return Err(ErrorData::invalid_params("this server is read-only", None));
        }
        let id = self.id(&request.task_id).map_err(|problem| refused(&problem))?;
        jobs::cancel(&self.gateway, &self.caller, &id).await.map_err(|problem| refused(&problem))?;
        Ok(())
    }
}

impl Server {
    fn may_change(&self) -> bool {
        self.gateway.mcp.may_change()
    }

    fn id(&self, text: &str) -> Result<JobId, Problem> {
        let id = JobId::parse(text, &self.gateway.home);
        id.ok_or_else(|| Problem::of_field("/id", "it is no id of a job, which is NAMESPACE.NAME"))
    }

    fn given_id(&self, given: &JsonObject) -> Result<JobId, Problem> {
        self.id(given.get("id").and_then(Value::as_str).unwrap_or_default())
    }

    fn shown(&self, job: &Value) -> Value {
        serde_json::to_value(view::Job::of(job, &self.gateway.prefix)).unwrap_or_default()
    }

    /// Makes a job.
    async fn run(&self, mut given: JsonObject) -> Result<Value, Problem> {
        let mut headers = HeaderMap::new();
        if let Some(key) = given.remove(tools::KEY) {
            // What is no text, or none that a header can have, is refused like an unusable key.
            let key = key.as_str().and_then(|key| HeaderValue::from_str(key).ok());
            headers.insert(HeaderName::from_static("idempotency-key"), key.unwrap_or(HeaderValue::from_static("")));
        }
        let body = Value::Object(given).to_string();
        value_of(submit::submit(&self.gateway, &self.caller, &headers, body.as_bytes()).await?).await
    }

    async fn get(&self, given: &JsonObject) -> Result<Value, Problem> {
        value_of(jobs::status(&self.gateway, &self.caller, &self.given_id(given)?).await?).await
    }

    async fn result(&self, given: &JsonObject) -> Result<Value, Problem> {
        self.result_of(&self.given_id(given)?).await
    }

    async fn result_of(&self, id: &JobId) -> Result<Value, Problem> {
        let returned = value_of(jobs::result(&self.gateway, &self.caller, id).await?).await?;
        Ok(json!({ "id": id.to_string(), "result": returned }))
    }

    async fn cancel(&self, given: &JsonObject) -> Result<Value, Problem> {
        value_of(jobs::cancel(&self.gateway, &self.caller, &self.given_id(given)?).await?).await
    }

    /// Waits for the end of a job, but not for long.
    async fn follow(&self, given: &JsonObject) -> Result<Value, Problem> {
        let id = self.given_id(given)?;
        let (usual, most) = FOLLOWED;
        let seconds = given.get("seconds").map_or(Some(usual), Value::as_u64).filter(|seconds| *seconds <= most);
        let seconds = seconds
            .ok_or_else(|| Problem::of_field("/seconds", format!("it must be a whole number from 0 to {most}")))?;
        let _seat = self.gateway.seat(&self.caller.key)?;
        let until = Instant::now() + Duration::from_secs(seconds);
        loop {
            let job = jobs::read(&self.gateway, &self.caller, &id).await?;
            if view::is_over(&job) || Instant::now() >= until || self.gateway.stop.is_cancelled() {
                return Ok(self.shown(&job));
            }
            tokio::select! { () = sleep(AGAIN) => {}, () = self.gateway.stop.cancelled() => {} }
        }
    }
}

/// The body of an answer: JSON, or a text.
async fn value_of(answer: Answer) -> Result<Value, Problem> {
    let is_json = answer.headers().get(http::header::CONTENT_TYPE).is_some_and(|kind| kind == "application/json");
    let body = to_bytes(answer.into_body(), RESULT).await;
    let body = body.map_err(|_| {
        Problem::new(crate::core::gateway::problem::Kind::ResultOnRedis, "it is too large for a tool's answer")
    })?;
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    Ok(if is_json { serde_json::from_slice(&body).unwrap_or_else(|_| text()) } else { text() })
}

/// What a model is told: a problem is one of the tool, which the model can read and mend.
fn result_of(called: Result<Value, Problem>) -> CallToolResult {
    match called {
        Ok(value) => CallToolResult::structured(value),
        Err(problem) => CallToolResult::structured_error(answer::members(&problem)),
    }
}

/// The same where a request is not one of a tool.
fn refused(problem: &Problem) -> ErrorData {
    ErrorData::invalid_params(problem.detail.clone(), Some(answer::members(problem)))
}
