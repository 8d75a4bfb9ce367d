# Redis answers, and has read what was on its disk. redis-cli ends well on errors too, hence grep.
redis-cli ping | grep -q PONG
