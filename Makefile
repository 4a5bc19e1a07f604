.PHONY: demo test docs lock
demo:
	script/demo
test:
	script/test
docs:
	script/docs
lock:
	script/lock
