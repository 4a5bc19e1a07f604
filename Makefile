.PHONY: demo test lock
demo:
	script/demo
test:
	script/test
lock:
	script/lock
