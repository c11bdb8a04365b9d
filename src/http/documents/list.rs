//! Stands between requests for all documents of a partition and their pages.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use lanekeeper_actors::directory::list_charge;
use lanekeeper_actors::model::document;
use lanekeeper_actors::model::ids::{Etag, Position};

use super::render::{CACHING, CONTINUATION, JSON, REQUEST_CHARGE};
use super::session::SESSION_TOKEN;
use super::{Admitted, Unacceptable};
use crate::http::continuation;
use crate::http::path::query_value;
use crate::http::problem::Problem;
use crate::http::routes::{Documents, Key};

impl Admitted<'_> {
    pub(super) fn list(&self, documents: &Documents, partition: &Key) -> Result<HttpResponse, Problem> {
        let address = self.address(documents, partition.of(self.segments, None)?);
        let encoded = address.encode();
        let (limit, token) = self.page(self.limits.page_default, self.limits.page_max)?;
        let after = token.map(|token| continuation::decode(&encoded, &token)).transpose()?;
        let partition = self.directory.partition(&address)?;
        let session = self.session(partition.shard())?;
        let page = partition.list(after.as_ref(), limit, self.limits.page_bytes)?;
        let mut body = Vec::from(b"{\"documents\":[");
        for (i, found) in page.documents.iter().enumerate() {
            let document = &found.document;
            if i > 0 {
                body.push(b',');
            }
            let etag = Etag(Position { shard: partition.shard(), lsn: document.lsn });
            document::render(&document.body, etag, document.at, document.version().transaction(), &mut body);
        }
        body.extend_from_slice(format!("],\"count\":{}}}", page.documents.len()).as_bytes());
        let mut response = HttpResponse::Ok();
        response.insert_header((CONTENT_TYPE, JSON)).insert_header((CACHE_CONTROL, CACHING));
        response.insert_header((REQUEST_CHARGE, list_charge(&page).to_string()));
        response.insert_header((SESSION_TOKEN, session));
        if let Some(last) = page.documents.last().filter(|_| page.more) {
            response.insert_header((CONTINUATION, continuation::encode(&encoded, &last.document.id)));
        }
        Ok(response.body(body))
    }

    /// How many documents are wanted, and the token of the page before.
    pub(super) fn page(&self, default: usize, max: usize) -> Result<(usize, Option<String>), Problem> {
        let query = self.req.uri().query().unwrap_or_default();
        let limit = match query_value(query, "limit").transpose()? {
            None => default,
            Some(text) => match text.parse::<u64>() {
                Ok(number) if number > 0 => usize::try_from(number).unwrap_or(usize::MAX).min(max),
                Ok(_) | Err(_) => return Err(Unacceptable::Limit.into()),
            },
        };
        let headers = self.req.headers();
        let header = headers.get(CONTINUATION).or_else(|| headers.get("continuation"));
        let header = header.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        Ok((limit, query_value(query, "continuation").transpose()?.or(header)))
    }
}
