//! What is asked of [`Storage`] outside of a tenant's scope: look-ups that come before the tenant is known,
//! each of one row by a secret or a public id, what belongs to the whole deployment, and the chores.

use hubbub_protocol::{BotId, TenantId};

use crate::{
    Storage, StorageError, api_keys, bots, migrations, prices, tenants, tickets, visitors,
};

impl Storage {
    /// Every tenant, oldest first.
    ///
    /// # Errors
    /// The database could not.
    pub async fn list_tenants(&self) -> Result<Vec<tenants::Tenant>, StorageError> {
        self.within(tenants::list(&self.app)).await
    }

    /// Sets a price.
    ///
    /// # Errors
    /// The model has one from that very moment already, or the database could not.
    pub async fn set_price(&self, price: &prices::Price) -> Result<(), StorageError> {
        self.within(prices::set(&self.app, price)).await
    }

    /// All prices, past, present and future.
    ///
    /// # Errors
    /// The database could not.
    pub async fn list_prices(&self) -> Result<Vec<prices::Price>, StorageError> {
        self.within(prices::list(&self.app)).await
    }

    /// Finds an API key of any tenant by its public part; revoked ones too.
    ///
    /// # Errors
    /// The database could not.
    pub async fn find_api_key(
        &self,
        key_id: &str,
    ) -> Result<Option<api_keys::ApiKey>, StorageError> {
        self.within(api_keys::find(&self.app, key_id)).await
    }

    /// Which of these API keys open nothing: revoked, or not there.
    ///
    /// # Errors
    /// The database could not.
    pub async fn list_unusable_keys(
        &self,
        key_ids: &[Box<str>],
    ) -> Result<Vec<String>, StorageError> {
        self.within(api_keys::list_unusable(&self.app, key_ids))
            .await
    }

    /// Uses a ticket up: of any number of attempts one gets it. `None` also when it has expired.
    ///
    /// # Errors
    /// The database could not.
    pub async fn redeem_ticket(
        &self,
        ticket_sha256: &[u8; 32],
    ) -> Result<Option<(TenantId, tickets::Ticket)>, StorageError> {
        self.within(tickets::redeem(&self.app, ticket_sha256)).await
    }

    /// Deletes at most a thousand tickets that nobody redeemed in time; how many there were.
    ///
    /// # Errors
    /// The database could not.
    pub async fn delete_expired_tickets(&self) -> Result<u64, StorageError> {
        self.within(tickets::delete_expired(&self.app)).await
    }

    /// Deletes at most a thousand visitors who came and never opened a session; how many there were.
    ///
    /// # Errors
    /// The database could not.
    pub async fn delete_expired_visitors(&self) -> Result<u64, StorageError> {
        self.within(visitors::delete_expired(&self.app)).await
    }

    /// Makes the partitions that the coming months' messages go to.
    ///
    /// # Errors
    /// The database could not.
    pub async fn make_partitions(&self) -> Result<(), StorageError> {
        self.within(async {
            let client = self.app.get().await?;
            client.execute(migrations::MAKE_PARTITIONS, &[]).await?;
            Ok(())
        })
        .await
    }

    /// Finds the tenant of a bot that a public widget names.
    ///
    /// # Errors
    /// The database could not.
    pub async fn find_widget_bot(
        &self,
        bot: BotId,
    ) -> Result<Option<bots::WidgetBot>, StorageError> {
        self.within(bots::find_widget(&self.app, bot)).await
    }
}
