//! One attempt comes to what a shape means, over a real socket and with its status and headers.

use std::time::Duration;

use futures_util::StreamExt;
use hubbub::config::{Api, BaseUrl, UpstreamConfig, UpstreamDialect, UpstreamTimeouts};
use hubbub::llm::RemoteUpstream;
use hubbub_actors::ports::{ChatRequest, ChatTurn, TurnRole, Upstream};

use crate::decoded::Outcome;
use crate::peer::Peer;
use crate::shape::Shape;

fn upstream(peer: &Peer, api: Api) -> RemoteUpstream {
    RemoteUpstream::new(UpstreamConfig {
        name: "shapes".into(),
        base_url: BaseUrl::Http(peer.base_url.clone()),
        model: "none".into(),
        api_key: None,
        group: None,
        slots: 4..=4,
        context_tokens: 1_000,
        timeouts: UpstreamTimeouts {
            connect: Duration::from_secs(10),
            first_token: Duration::from_secs(20),
            token: Duration::from_secs(20),
            answer: Duration::from_mins(1),
        },
        dialect: UpstreamDialect {
            api,
            ..UpstreamDialect::default()
        },
    })
    .unwrap()
}

// M2, M3, M9, M14
#[tokio::test]
async fn every_shape_comes_to_what_it_means_over_a_socket() {
    let shapes = Shape::all();
    let peer = Peer::start(&shapes).await;
    let upstreams =
        [Api::OpenAi, Api::Anthropic, Api::Ollama].map(|api| (api, upstream(&peer, api)));
    let mut wrong = Vec::new();
    for shape in &shapes {
        let request = ChatRequest {
            model: Some(shape.name.clone()),
            turns: vec![ChatTurn {
                role: TurnRole::User,
                text: "hi".into(),
            }],
            max_output_tokens: 64,
            request_id: "reply-1".into(),
        };
        let (_, upstream) = upstreams.iter().find(|(api, _)| *api == shape.api).unwrap();
        let events: Vec<_> = upstream.stream(request).collect().await;
        let (found, expected) = (Outcome::of(events), Outcome::expected(shape));
        if found != expected {
            wrong.push(format!("{}: {found:?}, not {expected:?}", shape.name));
        }
        assert_eq!(peer.requests(&shape.name), 1, "{}", shape.name);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
