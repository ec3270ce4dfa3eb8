"""redis-py under load until the key `stop` appears; prints one JSON line of what it met."""
import json
import sys

import redis
from redis import maint_notifications as maint

notices = []


def recorded(cls):
    handle = cls.handle_notification

    def wrapper(self, notification):
        notices.append(type(notification).__name__)
        return handle(self, notification)

    cls.handle_notification = wrapper


recorded(maint.MaintNotificationsPoolHandler)
recorded(maint.MaintNotificationsConnectionHandler)

client = redis.Redis(
    host=sys.argv[1],
    port=int(sys.argv[2]),
    protocol=3,
    socket_timeout=5,
    retry=None,
    maint_notifications_config=maint.MaintNotificationsConfig(enabled=True, endpoint_type=maint.EndpointType(sys.argv[3])),
)
done, errors = 0, []
while True:
    try:
        client.incr("n")
        done += 1
        if client.get("stop"):
            break
    except redis.RedisError as error:
        errors.append(repr(error))
        if len(errors) > 100:
            break
print(json.dumps({"done": done, "errors": errors, "notices": notices}))
