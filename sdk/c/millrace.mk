# Builds and tests a plugin. The plugin's Makefile names what it is made of, and includes this file:
#
#   NAME = order-filter
#   SOURCES = plugin.c
#   TESTS = test.c
#   include …/sdk/c/millrace.mk
#
# ZIG: the compiler, as a command line (`python3 -m pip install ziglang==0.17.0` brings one); MILLRACE: the binary.
ZIG ?= python3 -m ziglang
MILLRACE ?= millrace
MR_SDK := $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))
MR_BUILD ?= build
MR_FLAGS = -I$(MR_SDK)/include -Wall -Wextra -O2
# C++ without exceptions, and without a runtime library: headers of the standard library work.
MR_CXXFLAGS = -std=c++20 -fno-exceptions -fno-rtti -fno-threadsafe-statics
# The stack lies at the bottom of the memory: who overflows it traps, and harms nothing.
MR_WASM = --target=wasm32-wasi -mexec-model=reactor
MR_LINK = -s -Wl,-z,stack-size=262144
MR_SOURCES := $(wildcard $(MR_SDK)/src/*.c)
MR_HEADERS := $(wildcard $(MR_SDK)/src/*.h $(MR_SDK)/include/*.h)
# One compiler call for each of: the SDK, the plugin, the two together.
MR_COMPILE = $(if $(filter %.cpp,$(1)),$(ZIG) c++ $(MR_CXXFLAGS),$(ZIG) cc -std=c11) $(MR_FLAGS) $(CFLAGS)
mr_objects = $(patsubst $(MR_SDK)/src/%.c,$(MR_BUILD)/$(1)/sdk/%.o,$(MR_SOURCES)) $(patsubst %,$(MR_BUILD)/$(1)/%.o,$(notdir $(2)))

.PHONY: all test clean
all: $(NAME).wasm

vpath %.c $(sort $(dir $(SOURCES) $(TESTS)))
vpath %.cpp $(sort $(dir $(SOURCES) $(TESTS)))

$(NAME).wasm: $(MR_BUILD)/$(notdir $(NAME)).core.wasm
	$(MILLRACE) plugin build $< -o $@

$(MR_BUILD)/$(notdir $(NAME)).core.wasm: $(call mr_objects,wasm,$(SOURCES))
	$(ZIG) cc $(MR_WASM) $(MR_LINK) -o $@ $^

test: $(MR_BUILD)/test
	$(MR_BUILD)/test

$(MR_BUILD)/test: $(call mr_objects,native,$(SOURCES) $(TESTS))
	$(ZIG) cc -o $@ $^

clean:
	rm -rf $(MR_BUILD) $(NAME).wasm

$(MR_BUILD)/wasm/sdk/%.o: $(MR_SDK)/src/%.c $(MR_HEADERS)
	@mkdir -p $(@D)
	$(call MR_COMPILE,$<) $(MR_WASM) -c -o $@ $<
$(MR_BUILD)/native/sdk/%.o: $(MR_SDK)/src/%.c $(MR_HEADERS)
	@mkdir -p $(@D)
	$(call MR_COMPILE,$<) -c -o $@ $<
$(MR_BUILD)/wasm/%.o: % $(MR_HEADERS)
	@mkdir -p $(@D)
	$(call MR_COMPILE,$<) $(MR_WASM) -c -o $@ $<
$(MR_BUILD)/native/%.o: % $(MR_HEADERS)
	@mkdir -p $(@D)
	$(call MR_COMPILE,$<) -c -o $@ $<
