-- Reads the query of a session's creation as Jitsi's modules do (mod_jitsi_session), and records the room:
--
--   sid <tab> room <tab> token
--
-- A value that is missing is `-`. Each line is written at once. Every response names this server, as a shard of Jitsi.

module:set_global();

local formdecode = require "util.http".formdecode;

local file = assert(io.open(module:get_option_string("e2e_rooms"), "a"));
file:setvbuf("line");
local shard = module:get_option_string("e2e_shard");

module:hook("bosh-session", function (event)
	local query = event.request.url.query;
	local params = query and formdecode(query) or {};
	file:write(("%s\t%s\t%s\n"):format(event.session.sid, params.room or "-", params.token or "-"));
end);

module:hook_object_event(require "net.http.server", "POST /http-bind", function (event)
	event.response.headers["X-Jitsi-Shard"] = shard;
end, 1000); -- before mod_bosh, whose answer ends the event
