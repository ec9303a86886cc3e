// A life of a deployment by a client that openapi-generator made of the document: it refuses an answer that lacks a
// required member, and one with a member that the document does not have.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"time"

	edgegap "edgegap.invalid/client"
)

// must ends the program where a call failed, with what could not be read.
func must[T any](what string, value T, answer *http.Response, err error) T {
	if err != nil {
		status := ""
		if answer != nil {
			status = answer.Status
		}
		fmt.Fprintf(os.Stderr, "%s: %v (%s)\n", what, err, status)
		os.Exit(1)
	}
	fmt.Println(what)
	return value
}

func done(what string, answer *http.Response, err error) {
	must(what, true, answer, err)
}

func main() {
	base, token, command, arguments := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	configuration := edgegap.NewConfiguration()
	configuration.Servers = edgegap.ServerConfigurations{{URL: base}}
	configuration.AddDefaultHeader("Authorization", token)
	api, ctx := edgegap.NewAPIClient(configuration).DefaultAPI, context.Background()

	app, answer, err := api.CreateApplication(ctx).Application(*edgegap.NewApplication("game", true, "")).Execute()
	must("createApplication", app, answer, err)
	version := edgegap.NewVersion("v1", 256, 512, "registry.example.com", "studio/server", "7")
	version.SetCommand(command)
	version.SetArguments(arguments)
	port := edgegap.NewVersionPort(7777, "UDP")
	port.SetName("gameport")
	version.SetPorts([]edgegap.VersionPort{*port})
	created, answer, err := api.CreateVersion(ctx, "game").Version(*version).Execute()
	must("createVersion", created, answer, err)
	found, answer, err := api.GetVersion(ctx, "game", "v1").Execute()
	must("getVersion", found, answer, err)
	versions, answer, err := api.ListVersions(ctx, "game").Execute()
	must("listVersions", versions, answer, err)
	one, answer, err := api.GetApplication(ctx, "game").Execute()
	must("getApplication", one, answer, err)
	apps, answer, err := api.ListApplications(ctx).Execute()
	must("listApplications", apps, answer, err)
	ip, answer, err := api.GetPublicIp(ctx).Execute()
	must("getPublicIp", ip, answer, err)
	places, answer, err := api.ListLocations(ctx).Execute()
	must("listLocations", places, answer, err)
	beacons, answer, err := api.ListBeacons(ctx).Execute()
	must("listBeacons", beacons, answer, err)

	data := edgegap.NewUserUserData()
	data.SetIpAddress("198.51.100.23")
	user := edgegap.NewUser("ip_address", *data)
	asked := edgegap.NewDeploymentCreate("game", "v1", []edgegap.User{*user})
	accepted, answer, err := api.Deploy(ctx).DeploymentCreate(*asked).Execute()
	must("deploy", accepted, answer, err)
	id := accepted.GetRequestId()
	for until := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		status, answer, err := api.GetDeployment(ctx, id).Execute()
		must("getDeployment", status, answer, err)
		if status.GetRunning() {
			break
		}
		if time.Now().After(until) {
			fmt.Fprintln(os.Stderr, "the deployment is not ready after 60 s:", status.GetCurrentStatus())
			os.Exit(1)
		}
	}
	list, answer, err := api.ListDeployments(ctx).Execute()
	must("listDeployments", list, answer, err)
	tag, answer, err := api.CreateTag(ctx, id).Tag(*edgegap.NewTag("blue")).Execute()
	must("createTag", tag, answer, err)
	tags, answer, err := api.ListTags(ctx, id).Execute()
	must("listTags", tags, answer, err)
	metrics, answer, err := api.GetMetrics(ctx, id).Execute()
	must("getMetrics", metrics, answer, err)
	stopped, answer, err := api.StopDeployment(ctx, id).Execute()
	must("stopDeployment", stopped, answer, err)
	logs, answer, err := api.GetLogs(ctx, id).Execute()
	must("getLogs", logs, answer, err)
	old := edgegap.NewDeployV1("game")
	old.SetVersionName("v1")
	old.SetIpList([]string{"198.51.100.23"})
	oldAccepted, answer, err := api.DeployV1(ctx).DeployV1(*old).Execute()
	must("deployV1", oldAccepted, answer, err)
	filter := edgegap.NewBulkFilter("request_id", []string{oldAccepted.GetRequestId()}, "any")
	bulk, answer, err := api.BulkStop(ctx).BulkStopRequest(*edgegap.NewBulkStopRequest([]edgegap.BulkFilter{*filter})).Execute()
	must("bulkStop", bulk, answer, err)
	answer, err = api.DeleteApplication(ctx, "game").Execute()
	done("deleteApplication", answer, err)
}
