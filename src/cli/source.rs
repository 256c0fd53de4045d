//! Where what is asked is asked: of a running agent, or of the journal itself where none runs. Never
//! of the journal because the agent may not be asked.

use super::exit::CliError;
use super::past::{journal, unreadable};
use super::status::client;
use crate::api::{
    AgentStatus, Client, ClientError, DeadDone, DeadPage, DeadQuery, PendingQuery, ReplayAnswer,
};
use crate::config::Config;
use crate::journal::{Journal, RouteStatus, Selection};
use crate::{api, clock};

/// One of the two.
pub(super) enum Source {
    Agent(Client, Box<AgentStatus>),
    Journal(Journal),
}

impl Source {
    /// The agent if one runs; else the journal, opened until [`Source::close`].
    pub(super) async fn open(config: &Config) -> Result<Self, CliError> {
        let client = client(config);
        match client.status().await {
            Ok(status) => Ok(Self::Agent(client, Box::new(status))),
            Err(ClientError::NotRunning(socket)) => {
                Ok(Self::Journal(journal(config, ClientError::NotRunning(socket)).await?))
            }
            Err(why) => Err(why.into()),
        }
    }

    /// Whether deliveries go out now.
    pub(super) const fn is_running(&self) -> bool {
        matches!(self, Self::Agent(..))
    }

    /// Each route that the journal knows.
    pub(super) async fn routes(&self) -> Result<Vec<RouteStatus>, CliError> {
        match self {
            Self::Agent(_, status) => Ok(status.journal.routes.clone()),
            Self::Journal(journal) => Ok(journal.status().await.map_err(|why| unreadable(&why))?.routes),
        }
    }

    /// A page of dead letters.
    pub(super) async fn dead(&self, query: &DeadQuery) -> Result<DeadPage, CliError> {
        match self {
            Self::Agent(client, _) => Ok(client.dead(query).await?),
            Self::Journal(journal) => query.page(journal).await.map_err(|why| unreadable(&why)),
        }
    }

    /// Makes deliveries of a page of them again.
    pub(super) async fn dead_retry(&self, query: &DeadQuery) -> Result<DeadDone, CliError> {
        match self {
            Self::Agent(client, _) => Ok(client.dead_retry(query).await?),
            Self::Journal(journal) => query.retry(journal).await.map_err(|why| unreadable(&why)),
        }
    }

    /// Drops a page of them.
    pub(super) async fn dead_drop(&self, query: &DeadQuery) -> Result<DeadDone, CliError> {
        match self {
            Self::Agent(client, _) => Ok(client.dead_drop(query).await?),
            Self::Journal(journal) => query.drop(journal).await.map_err(|why| unreadable(&why)),
        }
    }

    /// Gives up some of what waits on a route that is not configured; 0 when there are no more.
    pub(super) async fn pending_drop(&self, query: &PendingQuery) -> Result<u64, CliError> {
        let done = match self {
            Self::Agent(client, _) => client.pending_drop(query).await?,
            Self::Journal(journal) => query.drop(journal).await.map_err(|why| unreadable(&why))?,
        };
        Ok(done.dropped)
    }

    /// What a replay would send.
    pub(super) async fn replay_count(&self, what: &Selection) -> Result<ReplayAnswer, CliError> {
        match self {
            Self::Agent(client, _) => Ok(client.replay_count(what).await?),
            Self::Journal(journal) => {
                api::replay(journal, what, false, clock::now()).await.map_err(|why| unreadable(&why))
            }
        }
    }

    /// Sends it.
    pub(super) async fn replay(&self, what: &Selection) -> Result<ReplayAnswer, CliError> {
        match self {
            Self::Agent(client, _) => Ok(client.replay(what).await?),
            Self::Journal(journal) => {
                api::replay(journal, what, true, clock::now()).await.map_err(|why| unreadable(&why))
            }
        }
    }

    /// Lets the journal go.
    pub(super) async fn close(self) {
        if let Self::Journal(journal) = self {
            journal.close().await;
        }
    }
}
