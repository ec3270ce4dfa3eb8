"""redis-py under load until the key `stop` appears; prints what it heard, met and did, one thing a line.

Arguments: standalone or cluster, host, port, endpoint type, keys to count on.
"""
import sys

import redis
from redis import maint_notifications as maint
from redis.backoff import NoBackoff
from redis.retry import Retry

mode, host, port, endpoint_type, *keys = sys.argv[1:]
heard = set()


def recorded(cls):
    handle = cls.handle_notification

    def wrapper(self, notification):
        heard.add((maint.notification_types_mapping[type(notification)], notification.id))
        return handle(self, notification)

    cls.handle_notification = wrapper


recorded(maint.MaintNotificationsPoolHandler)
recorded(maint.MaintNotificationsConnectionHandler)

client = {"standalone": redis.Redis, "cluster": redis.RedisCluster}[mode](
    host=host,
    port=int(port),
    protocol=3,
    socket_timeout=5,
    retry=Retry(NoBackoff(), 0),
    maint_notifications_config=maint.MaintNotificationsConfig(
        enabled=True, endpoint_type=maint.EndpointType(endpoint_type)
    ),
)
done, errors = dict.fromkeys(keys, 0), []
stopped = None
while not stopped and len(errors) < 100:
    try:
        for key in keys:
            client.incr(key)
            done[key] += 1
        stopped = client.get("stop")
    except redis.RedisError as error:
        errors.append(repr(error))
for name, seq in heard:
    print("heard", name, seq)
for error in errors:
    print("error", error)
for key, count in done.items():
    print("done", key, count)
