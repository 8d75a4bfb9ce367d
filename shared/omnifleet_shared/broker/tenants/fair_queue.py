"""Fair queues: whose message is the next one of a lane, decided inside the scripts of submissions and leases.

A lane is one of a queue's lists, of one priority. Messages without a tenant wait in the list itself, as ever; each
tenant's wait in a list of their own. The next message is that of the tenant whose virtual time is least: the
GPU-seconds of its jobs by its weight. This is start-time fair queueing (Goyal, Vin and Cheng, 1996): the lane's own
virtual time is that of the last tenant chosen, or of the next one where that has been given back what it was charged
too much. A tenant that had nothing waiting goes on from there, so that nobody saves anything up, and nobody who is new
starves the others. Jobs without a tenant count as those of one more tenant.

A job is charged when it is taken, with the average of its tenant's jobs, so that one tenant does not get all free
slots; and when it ends with what it took beyond that, or less. What an attempt took whose worker was lost is not known:
its estimate stays. Charges halve in weight every ten minutes: each costs `2^(t / HALF_LIFE)` of what one at t = 0 does,
which leaves all proportions as if the older ones had shrunk (forward decay: Cormode and others, 2009).

Workers of older releases take from the lanes' lists alone. While one of them lives, tenants' messages go there, and
workers of this release put those that wait already there too, in their fair order.

A choice costs the same however many jobs wait and tenants are idle; it grows with the logarithm of the tenants that
wait.
"""

from __future__ import annotations

from ...keys import (
    BINDINGS,
    COMMON_COST,
    FAIR_LANE_KEY,
    OPEN_LIFETIME,
    TENANT_DAY_LIFETIME,
    TENANT_HEADER,
    TENANT_QUOTAS_KEY,
    TENANT_USE_KEY,
    TENANT_WEIGHTS_KEY,
    WORKER_RECORDS_KEY,
)
from ..kinds import BESIDE, IS_ANSWER

HALF_LIFE = 600.0
"""Seconds after which a charge counts half."""
MOST_HALVINGS = 100
"""Half-lives after which a lane's virtual times are counted anew, far below the largest number there is."""
FIRST_ESTIMATE = 1.0
"""GPU-seconds that a job is charged when it is taken while none of the lane's jobs has ended."""
LEARNING = 8
"""Jobs that the average of a tenant's jobs mostly is of."""
DAY = 86_400
LONGEST_NAME = 64
"""Characters of a tenant's name."""

# To make a function takes Redis a part of a microsecond, also where it is not called. So scripts that run for every job
# make these in a block of their own, where a tenant is concerned: where a message has `HEADER`, or a tenant's waits.
HEADER = f'"{TENANT_HEADER}"'

# Names of a lane's keys are made from its list. `tenant_of` finds the header in the message as JSON: inside of a text,
# the quotes would be escaped.
LANES = f"""
local function fair(place, what) return '{FAIR_LANE_KEY.format(place="")}' .. place .. (what or '') end
local function queue_of(place) return string.match(place, '^[^\\6]+') end
local function tenants_queue(place, tenant) return fair(queue_of(place), ':jobs:') .. tenant end
local function jobs_of(place, tenant) return tenants_queue(place, tenant) .. string.sub(place, #queue_of(place) + 1) end
local function virtual_time(place)
  local last = tonumber(redis.call('HGET', fair(place), 'time') or 0)
  local first = redis.call('ZRANGE', fair(place, ':waiting'), 0, 0, 'WITHSCORES')
  return first[1] and math.min(last, tonumber(first[2])) or last
end
local function exact(value) return string.format('%.17g', value) end
local function tenant_of(message)
  if not string.find(message, '{HEADER}', 1, true) then return false end
  local tenant = string.match(message, '{HEADER}: ?"(%w[%w_.-]*)"')
  return tenant and #tenant <= {LONGEST_NAME} and tenant
end
"""
# ENQUEUE. `side`: LPUSH, behind all others, or RPUSH, before them. Gives the list in whose place the message waits. A
# tenant's lists are named and noted as those of a queue of its own: releases that know no tenants find its messages
# there when they look for lost ones, and for files that nothing needs. So are those of answers.
ENQUEUE = f"""{LANES}{BESIDE}{IS_ANSWER}
local function all_workers_know(what, lane)
  local records = '{WORKER_RECORDS_KEY.format(queue="")}' .. queue_of(lane)
  return #redis.call('ZDIFF', 2, records .. ':seen', records .. what) == 0
end
local function note_queue(queue)
  redis.call('SADD', '{BINDINGS}' .. queue, queue .. '\\6\\22\\6\\22' .. queue)
end
local function enqueue_fairly(place, tenant, message, side)
  redis.call(side, jobs_of(place, tenant), message)
  redis.call('HINCRBY', fair(place), 'jobs', 1)
  if redis.call('ZSCORE', fair(place, ':waiting'), tenant) then return end
  note_queue(tenants_queue(place, tenant))
  local now = virtual_time(place)
  local due = math.max(now, tonumber(redis.call('ZSCORE', fair(place, ':idle'), tenant) or now))
  redis.call('ZREM', fair(place, ':idle'), tenant)
  redis.call('ZADD', fair(place, ':waiting'), exact(due), tenant)
end
local function enqueue(lane, message, side)
  local place = is_answer(message) and all_workers_know(':kinds', lane) and beside(lane) or lane
  local tenant = tenant_of(message)
  if tenant and all_workers_know(':fair', lane) then
    enqueue_fairly(place, tenant, message, side)
  else
    redis.call(side, place, message)
  end
  if place ~= lane then note_queue(queue_of(place)) end
  return place
end
"""
# CHOOSE. The first write is RPOP or ZREM, which a full Redis does not refuse, and so none after it.
CHOOSE = """
local function count_anew(place)
  local jobs = 0
  for _, tenant in ipairs(redis.call('ZRANGE', fair(place, ':waiting'), 0, -1)) do
    jobs = jobs + redis.call('LLEN', jobs_of(place, tenant))
  end
  redis.call('HSET', fair(place), 'jobs', jobs)
end
local function pop_of(place, tenant, due)
  local list = jobs_of(place, tenant)
  local message = redis.call('RPOP', list)
  if not message then  -- somebody deleted the list
    redis.call('ZREM', fair(place, ':waiting'), tenant)
    count_anew(place)
    return false
  end
  redis.call('HINCRBY', fair(place), 'jobs', -1)
  if redis.call('EXISTS', list) == 0 then
    redis.call('ZREM', fair(place, ':waiting'), tenant)
    redis.call('ZADD', fair(place, ':idle'), exact(due), tenant)
  end
  return message
end
-- The lane's next message, and whom it is charged to: '' is everybody without a tenant, and false is nobody, where
-- there is nobody else to be fair to.
local function next_of(place)
  while true do
    local first = redis.call('ZRANGE', fair(place, ':waiting'), 0, 0, 'WITHSCORES')
    if not first[1] then return redis.call('RPOP', place), false end
    local tenant, due, now = first[1], tonumber(first[2]), virtual_time(place)
    local common = redis.call('EXISTS', place) == 1
      and math.max(now, tonumber(redis.call('ZSCORE', fair(place, ':idle'), '') or now))
    if common and common <= due then tenant, due = '', common end
    local message
    if tenant == '' then message = redis.call('RPOP', place) else message = pop_of(place, tenant, due) end
    if message then
      redis.call('HSET', fair(place), 'time', exact(due))
      redis.call('ZREMRANGEBYSCORE', fair(place, ':idle'), '-inf', '(' .. exact(due))
      return message, tenant
    end
  end
end
"""
# CHARGE. A charge is of the time at which its job was taken, so that what is left of an estimate is charged, or given
# back, at the same price.
CHARGE = f"""
local function charge(place, account, seconds, at)
  local weight = tonumber(redis.call('HGET', '{TENANT_WEIGHTS_KEY}', account) or 1)
  local epoch = tonumber(redis.call('HGET', fair(place), 'epoch') or at)
  local price = seconds / weight * 2 ^ ((at - epoch) / {HALF_LIFE})
  if redis.call('ZSCORE', fair(place, ':waiting'), account) then
    redis.call('ZINCRBY', fair(place, ':waiting'), exact(price), account)
    return
  end
  local now = virtual_time(place)
  local due = math.max(now, tonumber(redis.call('ZSCORE', fair(place, ':idle'), account) or now))
  redis.call('ZADD', fair(place, ':idle'), exact(due + price), account)
end
local function learn(place, account, seconds)
  for _, who in ipairs({{account, '{COMMON_COST}'}}) do
    local before = tonumber(redis.call('HGET', fair(place, ':costs'), who) or seconds)
    redis.call('HSET', fair(place, ':costs'), who, exact(before + (seconds - before) / {LEARNING}))
  end
  redis.call('EXPIRE', fair(place, ':costs'), {OPEN_LIFETIME})
end
-- Settles what a lease was charged; without seconds, its estimate was right.
local function settle(held, tag, seconds)
  local kept = redis.call('HGET', held, tag)
  if not kept then return end
  redis.call('HDEL', held, tag)
  local place, account, estimate, at = string.match(kept, '^([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)\\n([^\\n]*)$')
  if not seconds then return end
  charge(place, account, seconds - estimate, tonumber(at))
  if seconds > 0 then learn(place, account, seconds) end
end
"""
# QUOTA. What is left of a tenant's quota of today, in GPU-seconds; nothing is known of a tenant without.
TODAY = f"""
local function today()
  return '{TENANT_USE_KEY}:' .. math.floor(redis.call('TIME')[1] / {DAY})
end
"""
QUOTA = f"""{TODAY}
local function quota_left(tenant)
  local quota = redis.call('HGET', '{TENANT_QUOTAS_KEY}', tenant)
  return quota and quota - (redis.call('HGET', today(), tenant) or 0)
end
"""
# SPENT. What an attempt took of a GPU is noted as its tenant's use, of the day (UTC) and in all.
SPENT = f"""{LANES}{CHARGE}{TODAY}
local function spent(held, tag, message, seconds)
  settle(held, tag, seconds)
  local tenant = seconds > 0 and tenant_of(message)
  if not tenant then return end
  local day = today()
  redis.call('HINCRBYFLOAT', '{TENANT_USE_KEY}', tenant, exact(seconds))
  redis.call('HINCRBYFLOAT', day, tenant, exact(seconds))
  redis.call('EXPIRE', day, {TENANT_DAY_LIFETIME})
end
"""
HOLD = f"""
local function begin_epoch(place, now)
  local epoch = tonumber(redis.call('HGET', fair(place), 'epoch') or now)
  local factor = 2 ^ ((epoch - now) / {HALF_LIFE})
  if now - epoch > {MOST_HALVINGS * HALF_LIFE} then
    for _, what in ipairs({{':waiting', ':idle'}}) do
      redis.call('ZUNIONSTORE', fair(place, what), 1, fair(place, what), 'WEIGHTS', exact(factor))
    end
    redis.call('HSET', fair(place), 'time', exact(virtual_time(place) * factor))
    epoch = now
  end
  redis.call('HSET', fair(place), 'epoch', exact(epoch))
end
local function hold(held, place, account, tag, now)
  begin_epoch(place, now)
  local known = redis.call('HMGET', fair(place, ':costs'), account, '{COMMON_COST}')
  local estimate = exact(known[1] or known[2] or {FIRST_ESTIMATE})
  charge(place, account, tonumber(estimate), now)
  redis.call('HSET', held, tag, table.concat({{place, account, estimate, exact(now)}}, '\\n'))
end
"""
# SPILL. What waits where older workers do not look is queued anew: tenants' messages, in their fair order, and then, in
# place of a lane, the others. Leases that an older worker ended are not known to it as charged.
SPILL = f"""
local function spill_tenants(place, most)
  for spilled = 0, most - 1 do
    local first = redis.call('ZRANGE', fair(place, ':waiting'), 0, 0, 'WITHSCORES')
    if not first[1] then return most - spilled end
    local message = pop_of(place, first[1], tonumber(first[2]))
    if message then
      enqueue(lane_of(place), message, 'LPUSH')
      charge(place, first[1], {FIRST_ESTIMATE}, redis.call('TIME')[1])
    end
  end
  return 0
end
local function spill_answers(lane, most)
  for _ = 1, spill_tenants(beside(lane), most) do
    local message = redis.call('RPOP', beside(lane))
    if not message then return end
    enqueue(lane, message, 'LPUSH')
  end
end
local function forget_ended(held, leased)
  for _, tag in ipairs(redis.call('HKEYS', held)) do
    if redis.call('HEXISTS', leased, tag) == 0 then redis.call('HDEL', held, tag) end
  end
end
"""
