// An active client: a Strophe.js connection that sends itself numbered messages. It also runs in a page, as text: it
// uses nothing but its arguments.

/** Logs in at `url`. `every`: milliseconds between two messages. */
export function chatter({ Strophe, $msg, $pres }, url, { domain, wait, every }) {
  const connection = new Strophe.Connection(url);
  const client = { connection, sent: [], received: [], online: null, ended: null, talks: true };
  let talking;
  const send = () => {
    if (!client.talks) return;
    client.sent.push(Date.now());
    connection.send($msg({ to: connection.jid, type: 'chat', id: String(client.sent.length - 1) }).c('body').t('a message'));
  };
  const receive = (message) => {
    client.received.push({ id: Number(message.getAttribute('id')), at: Date.now() });
    return true;
  };
  connection.connect(domain, null, (status, condition) => {
    if (status === Strophe.Status.CONNECTED) {
      client.online = Date.now();
      connection.addHandler(receive, null, 'message');
      connection.send($pres());
      talking = setInterval(send, every);
    } else if ([Strophe.Status.CONNFAIL, Strophe.Status.AUTHFAIL, Strophe.Status.DISCONNECTED].includes(status) && !client.ended) {
      client.ended = { at: Date.now(), reason: String(condition) };
      clearInterval(talking);
    }
  }, wait);
  return client;
}
