#!/bin/bash
printenv
/game/ServerBuild -batchmode -nographics $UNITY_COMMANDLINE_ARGS
