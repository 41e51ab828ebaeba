//! Answers that wait for the commit: sent after it, or turned into an error when it failed.

use aex_admin_proto::rpc::RpcError;

use super::Reply;

type Pending = Box<dyn FnOnce(Option<RpcError>) + Send>;

#[derive(Default)]
pub(crate) struct Answers {
    pending: Vec<Pending>,
}

impl Answers {
    pub(crate) fn push<T: Send + 'static>(&mut self, reply: Reply<T>, answer: Result<T, RpcError>) {
        self.pending.push(Box::new(move |failed| match failed {
            None => reply(answer),
            Some(error) => reply(Err(error)),
        }));
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn send(self) {
        for pending in self.pending {
            pending(None);
        }
    }

    pub(crate) fn fail(self, error: &RpcError) {
        for pending in self.pending {
            pending(Some(error.clone()));
        }
    }
}
