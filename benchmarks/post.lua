-- wrk script: POSTs the lines of a file in turn; prints one JSON line of results.
-- wrk -s post.lua URL -- BODIES [KEY]
local ready, at = {}, 0

function init(args)
  wrk.headers["Content-Type"] = "application/json"
  if args[2] then wrk.headers["Authorization"] = "Bearer " .. args[2] end
  for line in io.lines(args[1]) do
    ready[#ready + 1] = wrk.format("POST", nil, nil, line)
  end
  -- connections would otherwise all begin at the same line
  at = math.random(#ready)
end

function request()
  at = at % #ready + 1
  return ready[at]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"refused":%d,"broken":%d,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    summary.requests, summary.duration / 1e6, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
