//! What answers took and cost.

use actix_web::{HttpResponse, web};
use hubbub_actors::Permission;
use hubbub_protocol::usage::UsageBy;
use hubbub_protocol::{BotId, SessionId, Timestamp, VisitorId};
use serde::Deserialize;

use super::AppState;
use super::auth::Authenticated;
use super::input::Query;
use super::problem::ApiError;
use hubbub_storage::usage::{self, UsageFilter};

const ITEMS_DEFAULT: u32 = 1_000;
const ITEMS_MAX: u32 = 10_000;

/// Query of `GET /v1/usage`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageQuery {
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(default)]
    by: UsageBy,
    bot: Option<BotId>,
    visitor: Option<VisitorId>,
    session: Option<SessionId>,
    limit: Option<u32>,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Csv,
}

/// Sums up what the tenant's answers took and cost: since the beginning of the month, if nothing else is asked.
///
/// # Errors
/// `unauthorized`, `forbidden`, `invalid`.
pub async fn show(
    caller: Authenticated,
    Query(query): Query<UsageQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    caller.check(Permission::ReadUsage)?;
    let limit = query.limit.unwrap_or(ITEMS_DEFAULT);
    if limit == 0 || limit > ITEMS_MAX {
        return Err(ApiError::parameter("limit", "must be 1 to 10,000"));
    }
    let month = UsageFilter::this_month();
    let filter = UsageFilter {
        from: query.from.unwrap_or(month.from),
        to: query.to.unwrap_or(month.to),
        bot: query.bot,
        visitor: query.visitor,
        session: query.session,
    };
    if filter.from > filter.to {
        return Err(ApiError::parameter("from", "must not be later than to"));
    }
    let scope = state.storage.scope(caller.tenant).await?;
    let report = usage::sum(&scope, filter, query.by, limit).await?;
    Ok(match query.format {
        Format::Json => HttpResponse::Ok().json(report),
        Format::Csv => HttpResponse::Ok()
            .content_type("text/csv; charset=utf-8")
            .body(report.csv()),
    })
}
