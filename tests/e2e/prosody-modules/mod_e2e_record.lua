-- Records what this server saw: one line per BOSH request, before mod_bosh handles it.
--
--   time <tab> connection <tab> what <tab> sid
--
-- `time` is in seconds since the epoch, `connection` counts the connections that carried a request,
-- `what` is `request` (with the sid that the request names, or `-`) or `created` (with the sid that
-- the session got). Each line is written at once, so that `kill -9` loses none.

module:set_global();

local now = require "util.time".now;

local file = assert(io.open(module:get_option_string("e2e_record"), "a"));
file:setvbuf("line");

local numbers, last = setmetatable({}, { __mode = "k" }), 0;

local function number_of(conn)
	if not numbers[conn] then
		last = last + 1;
		numbers[conn] = last;
	end
	return numbers[conn];
end

local function record(conn, what, sid)
	file:write(("%.3f\t%d\t%s\t%s\n"):format(now(), number_of(conn), what, sid));
end

-- The clients of these tests write double quotes, and no `>` inside a value of the wrapper.
module:hook_object_event(require "net.http.server", "POST /http-bind", function (event)
	local wrapper = (event.request.body or ""):match("^[^>]*") or "";
	record(event.request.conn, "request", wrapper:match("%ssid=[\"']([^\"']*)[\"']") or "-");
end, 1000); -- before mod_bosh, whose answer ends the event

module:hook("bosh-session", function (event)
	record(event.request.conn, "created", event.session.sid);
end);
