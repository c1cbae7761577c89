//! `hubbub price`, `hubbub budget` and `hubbub usage`: what models cost, what may be spent, and what was. No
//! server is needed, and none is in the way.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hubbub_protocol::usage::{Dollars, UsageBy, UsageItem, UsageReport, UsageTotals};
use hubbub_protocol::{BotId, TenantId, Timestamp};
use uuid::Uuid;

use super::tenants::or_none;
use super::with_storage;
use crate::config::{Config, EMBEDDED_UPSTREAM};
use hubbub_storage::budgets::{self, BudgetScope, Period};
use hubbub_storage::prices;
use hubbub_storage::usage::{self, UsageFilter};
use hubbub_storage::{Storage, tenants};

/// Most items of a report on the command line.
const MOST_ITEMS: u32 = 1_000_000;

/// `hubbub price`.
#[derive(Clone, Debug, Subcommand)]
pub enum Price {
    /// Set what a million tokens cost, in dollars. What was used before keeps its cost.
    Set {
        /// The upstream's configured name.
        #[arg(long)]
        upstream: String,

        /// The model; without it, every model of the upstream that has no price of its own.
        #[arg(long, default_value = "")]
        model: String,

        /// Tokens of the prompt.
        #[arg(long, value_name = "DOLLARS")]
        input: Dollars,

        /// Tokens of the prompt that the upstream reads from its cache; without it, as the others.
        #[arg(long, value_name = "DOLLARS")]
        cached_input: Option<Dollars>,

        /// Tokens of the answer.
        #[arg(long, value_name = "DOLLARS")]
        output: Dollars,

        /// From when on, as 2026-12-01T00:00:00Z; without it, from now on.
        #[arg(long, value_name = "TIME", value_parser = time)]
        from: Option<Timestamp>,
    },
    /// List all prices, past, present and future.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `hubbub budget`.
#[derive(Clone, Debug, Subcommand)]
pub enum Budget {
    /// Set what a tenant, one of its bots, or each of its visitors may spend in a period.
    Set {
        /// The tenant's id.
        #[arg(long, value_name = "ID")]
        tenant: TenantId,

        /// Only for this bot.
        #[arg(long, value_name = "ID", conflicts_with = "each_visitor")]
        bot: Option<BotId>,

        /// For each visitor by themselves.
        #[arg(long)]
        each_visitor: bool,

        /// `day` or `month`, by the calendar, in UTC.
        #[arg(long)]
        period: Period,

        /// How much.
        #[arg(long)]
        dollars: Dollars,
    },
    /// List a tenant's budgets.
    List {
        /// The tenant's id.
        #[arg(long, value_name = "ID")]
        tenant: TenantId,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Remove a budget.
    Remove {
        /// The tenant's id.
        #[arg(long, value_name = "ID")]
        tenant: TenantId,

        /// The budget's id.
        id: Uuid,
    },
}

/// `hubbub usage`.
#[derive(Clone, Debug, Args)]
pub struct Usage {
    /// Only this tenant.
    #[arg(long, value_name = "ID")]
    tenant: Option<TenantId>,

    /// Sum up by tenant, bot, visitor, session, model or day.
    #[arg(long, default_value = "tenant")]
    by: UsageBy,

    /// From when on; without it, from the beginning of this month in UTC.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<Timestamp>,

    /// Until when; without it, until now.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<Timestamp>,

    /// Print CSV.
    #[arg(long, conflicts_with = "json")]
    csv: bool,

    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<Timestamp, &'static str> {
    let time: Result<jiff::Timestamp, _> = text.parse();
    time.map(Timestamp::from)
        .map_err(|_| "must be a time such as 2026-12-01T00:00:00Z")
}

/// Does what is asked of prices. Returns what a person, or with `--json` a program, wants to read.
///
/// # Errors
/// The database cannot be used, or the model has a price from that very moment.
pub async fn price(config: &Config, command: Price) -> anyhow::Result<String> {
    with_storage(config, async |storage| match command {
        Price::Set {
            upstream,
            model,
            input,
            cached_input,
            output,
            from,
        } => {
            let price = prices::Price {
                upstream,
                model,
                input: input.0,
                cached_input: cached_input.unwrap_or(input).0,
                output: output.0,
                valid_from: from,
            };
            storage.set_price(&price).await?;
            let mut configured = config.upstreams.iter();
            let is_known = price.upstream == EMBEDDED_UPSTREAM
                || configured.any(|known| known.name == price.upstream);
            let note = if is_known {
                ""
            } else {
                "\nnote: the configuration has no upstream of this name"
            };
            Ok(price_line(&price) + note)
        }
        Price::List { json } => {
            let all = storage.list_prices().await?;
            if json {
                return Ok(serde_json::to_string(&all)?);
            }
            let lines: Vec<String> = all.iter().map(price_line).collect();
            Ok(or_none(&lines, "no model has a price yet"))
        }
    })
    .await
}

fn price_line(price: &prices::Price) -> String {
    let [input, cached, output] =
        [price.input, price.cached_input, price.output].map(|each| Dollars(each).to_string());
    let model = if price.model.is_empty() {
        "all models"
    } else {
        &price.model
    };
    let from = price
        .valid_from
        .map_or_else(|| "now".to_owned(), |from| from.to_string());
    format!(
        "{}  {model}  input {input}  cached {cached}  output {output}  from {from}",
        price.upstream
    )
}

/// Does what is asked of budgets. Returns what a person, or with `--json` a program, wants to read.
///
/// # Errors
/// The database cannot be used, or there is no such tenant, bot or budget.
pub async fn budget(config: &Config, command: Budget) -> anyhow::Result<String> {
    with_storage(config, async |storage| match command {
        Budget::Set {
            tenant,
            bot,
            each_visitor,
            period,
            dollars,
        } => {
            check_tenant(storage, tenant).await?;
            let of = match bot {
                Some(bot) => BudgetScope::Bot(bot),
                None if each_visitor => BudgetScope::Visitor,
                None => BudgetScope::Tenant,
            };
            let scope = storage.scope(tenant).await?;
            let set = budgets::set(&scope, of, period, dollars.0).await;
            let id = set.map_err(|error| match error.constraint() {
                Some("budgets_bot_fkey") => anyhow::anyhow!("the tenant has no such bot"),
                _ => error.into(),
            })?;
            scope.commit().await?;
            Ok(id.to_string())
        }
        Budget::List { tenant, json } => {
            check_tenant(storage, tenant).await?;
            let all = budgets::list(&storage.scope(tenant).await?).await?;
            if json {
                return Ok(serde_json::to_string(&all)?);
            }
            let lines: Vec<String> = all.iter().map(budget_line).collect();
            Ok(or_none(&lines, "the tenant has no budget"))
        }
        Budget::Remove { tenant, id } => {
            let scope = storage.scope(tenant).await?;
            let was_there = budgets::remove(&scope, id).await?;
            scope.commit().await?;
            anyhow::ensure!(was_there, "the tenant has no budget {id}");
            Ok(format!("removed: {id}"))
        }
    })
    .await
}

fn budget_line(budget: &budgets::Budget) -> String {
    let whose = match (budget.bot, budget.scope.as_str()) {
        (Some(bot), _) => format!("bot {bot}"),
        (None, "visitor") => "each visitor".to_owned(),
        (None, _) => "the tenant".to_owned(),
    };
    let spent = budget
        .spent
        .map(|spent| format!(", spent {}", Dollars(spent)))
        .unwrap_or_default();
    format!(
        "{}  {whose}  {} a {}{spent}",
        budget.id,
        Dollars(budget.amount),
        budget.period
    )
}

/// Sums up the ledger. Returns what a person, or with `--json` and `--csv` a program, wants to read.
///
/// # Errors
/// The database cannot be used, or there is no such tenant.
pub async fn usage(config: &Config, asked: Usage) -> anyhow::Result<String> {
    with_storage(config, async |storage| {
        let month = UsageFilter::this_month();
        let filter = UsageFilter {
            from: asked.from.unwrap_or(month.from),
            to: asked.to.unwrap_or(month.to),
            ..month
        };
        let report = match asked.tenant {
            Some(tenant) => {
                check_tenant(storage, tenant).await?;
                let scope = storage.scope(tenant).await?;
                usage::sum(&scope, filter, asked.by, MOST_ITEMS).await?
            }
            None => of_all_tenants(storage, filter, asked.by).await?,
        };
        if asked.json {
            return Ok(serde_json::to_string(&report)?);
        }
        if asked.csv {
            return Ok(report.csv());
        }
        Ok(table(&report))
    })
    .await
}

async fn of_all_tenants(
    storage: &Storage,
    filter: UsageFilter,
    by: UsageBy,
) -> anyhow::Result<UsageReport> {
    anyhow::ensure!(
        by == UsageBy::Tenant,
        "name the tenant with --tenant to sum up by {}",
        by.as_str()
    );
    let mut all = UsageReport {
        from: filter.from,
        to: filter.to,
        by,
        total: UsageTotals::default(),
        items: Vec::new(),
        more: false,
    };
    for tenant in storage.list_tenants().await? {
        let scope = storage.scope(tenant.id).await?;
        let report = usage::sum(&scope, filter, by, 1).await?;
        all.total = all.total + report.total;
        all.items.extend(report.items);
    }
    all.items
        .sort_by_key(|item| std::cmp::Reverse(item.totals.cost_microcents));
    Ok(all)
}

/// Items in columns, and their total.
fn table(report: &UsageReport) -> String {
    let mut rows =
        vec![["", "attempts", "input", "cached", "output", "dollars"].map(str::to_owned)];
    let total = UsageItem {
        key: "total".to_owned(),
        totals: report.total,
    };
    for UsageItem { key, totals } in report.items.iter().chain([&total]) {
        rows.push([
            key.clone(),
            totals.attempts.to_string(),
            totals.input_tokens.to_string(),
            totals.cached_input_tokens.to_string(),
            totals.output_tokens.to_string(),
            Dollars(totals.cost_microcents).to_string(),
        ]);
    }
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths).enumerate();
        let cells = cells.map(|(column, (cell, width))| match column {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        cells.collect::<Vec<_>>().join("  ")
    });
    lines.collect::<Vec<_>>().join("\n")
}

async fn check_tenant(storage: &Storage, tenant: TenantId) -> anyhow::Result<()> {
    let found = tenants::find_limits(&storage.scope(tenant).await?).await?;
    found.with_context(|| format!("there is no tenant {tenant}"))?;
    Ok(())
}
